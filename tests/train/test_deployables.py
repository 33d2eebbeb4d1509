"""What every system hands out keeps the contract of :class:`Deployable`, at every variant; a new one is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny_systems import TINY, build, pictures, rain_on, save, scramble
from torch import Tensor

from derain.train.checkpoint import FORMAT, load_deployable
from derain.train.deployable import ContextDeployable, Deployable
from derain.train.systems import find_system
from derain.train.systems.base import _REGISTRY

NAMES = list(TINY)


def deployable(name: str, *, double: bool = False) -> Deployable:
    """With every weight random, in eval mode."""
    torch.set_flush_denormal(True)
    network = build(name).derainer.eval()
    scramble(network, 0.1)
    return network.double() if double else network


def test_every_system_and_variant_is_in_the_table() -> None:
    variants = {
        (name, variant)
        for name, system in _REGISTRY.items()
        for variant in get_args(system.Config.model_fields["variant"].annotation)
    }
    assert variants == {(system, table.get("variant", "edge")) for system, table in TINY.values()}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_the_declared_shape_and_range(name: str) -> None:
    network = deployable(name)
    spec = network.spec
    system, table = TINY[name]
    assert (spec.system, spec.variant) == (system, table.get("variant", "edge"))
    least, larger = (-(-side // spec.multiple_of) * spec.multiple_of for side in (spec.minimum, 48))
    for height, width in ((least, least), (larger, larger + spec.multiple_of)):
        rainy = torch.rand(2, 3, height, width)
        before = rainy.clone()
        with torch.no_grad():
            derained, attention = network(rainy)
            alone = network.attention_only(rainy)
        assert torch.equal(rainy, before), "the input was changed"
        assert derained.shape == rainy.shape
        assert attention.shape == (2, 1, height, width)
        for output in (derained, attention):
            assert output.dtype == torch.float32
            assert torch.isfinite(output).all()
            assert 0 <= float(output.min()) <= float(output.max()) <= 1
        torch.testing.assert_close(alone, attention)
        if spec.attention == "removed_rain":
            torch.testing.assert_close(attention, (rainy - derained).abs().mean(1, keepdim=True))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_a_batch_do_not_see_each_other(name: str) -> None:
    network = deployable(name, double=True)
    rainy = pictures(2, 1, 48).double()
    with torch.no_grad():
        together, apart = network(rainy), network(rainy[1:])
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a[1:], b)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_brings_back_the_same_network(name: str, tmp_path: Path) -> None:
    built = build(name, seed=3)
    scramble(built)
    path = save(built, name, tmp_path / "last.ckpt")
    assert FORMAT == 1
    loaded, info = load_deployable(path)
    assert (info.system, info.variant) == (built.derainer.spec.system, built.derainer.spec.variant)
    assert not loaded.training
    rainy = pictures(1, 1)
    with torch.no_grad():
        for a, b in zip(loaded(rainy), built.derainer.eval()(rainy), strict=True):
            assert torch.equal(a, b)


LOCAL = [name for name in NAMES if build(name).derainer.spec.receptive_field is not None]


def test_some_networks_are_local() -> None:
    """The two tests that follow must not pass for want of anything to test."""
    assert {"acgf edge", "acgf full guide", "aueid edge", "dcd-gan edge", "derain-cyclegan full"} <= set(LOCAL)


def _call(network: Deployable, rainy: Tensor, frame: Tensor) -> Tensor:
    """Derained and attention as four channels, with the whole-frame context, if any, of ``frame``."""
    if isinstance(network, ContextDeployable):
        return torch.cat(network.with_context(rainy, network.frame_context(frame)), dim=1)
    return torch.cat(network(rainy), dim=1)


@pytest.mark.parametrize("name", LOCAL)
def test_a_pixel_depends_on_its_receptive_field_alone(name: str) -> None:
    """Everything outside the square is changed, and the pixel stays; something inside, and it does not."""
    network = deployable(name, double=True)
    field, grid = network.spec.receptive_field, network.spec.multiple_of
    assert field is not None
    reach = field // 2 + 1
    side = -(-(2 * reach + 2 * grid + 2) // grid) * grid
    frame = rain_on(pictures(1, 1, side), 2).double()[..., :48]
    with torch.no_grad():
        expected = _call(network, frame, frame)
        for place in (side // 2, side // 2 + grid - 1):
            outside = 1 - frame
            inside = slice(place - reach, place + reach + 1)
            outside[..., inside, :] = frame[..., inside, :]
            changed = _call(network, outside, frame)
            torch.testing.assert_close(changed[..., place, :], expected[..., place, :], atol=1e-12, rtol=0)
            near = frame.clone()
            near[..., place + 1, :] = 1 - near[..., place + 1, :]
            assert (_call(network, near, frame) - expected)[..., place, :].abs().max() > 1e-6


@pytest.mark.parametrize("name", LOCAL)
def test_tiles_with_a_margin_of_the_receptive_field_equal_the_whole_frame(name: str) -> None:
    network = deployable(name, double=True)
    field, grid = network.spec.receptive_field, network.spec.multiple_of
    assert field is not None
    assert network.spec.tiling == ("needs_context" if isinstance(network, ContextDeployable) else "sound")
    margin = -(-(field // 2 + 1) // grid) * grid
    tile = 2 * grid
    side = 2 * margin + 3 * tile
    frame = rain_on(pictures(1, 1, side), 2).double()[..., :48, :]
    with torch.no_grad():
        whole = _call(network, frame, frame)
        for left in (0, tile, side // 2 // grid * grid, side - tile):
            start, stop = max(0, left - margin), min(side, left + tile + margin)
            part = _call(network, frame[..., start:stop], frame)
            kept = part[..., left - start : left - start + tile]
            torch.testing.assert_close(kept, whole[..., left : left + tile], atol=1e-12, rtol=0)


def test_networks_that_see_the_whole_frame_say_that_they_cannot_be_tiled() -> None:
    for name in set(NAMES) - set(LOCAL):
        spec = build(name).derainer.spec
        assert spec.tiling == "unsound"
        assert "frame" in spec.tiling_reason


def test_unknown_systems_are_told_apart() -> None:
    with pytest.raises(Exception, match="There is no system 'acfg'"):
        find_system("acfg")
