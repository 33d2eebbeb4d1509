"""DCD-GAN: sizes, resampling, what each mode trains, and that a tiny one learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counts import kmac_per_pixel, parameters
from lightning_fabric import Fabric
from tiny_systems import TINY, Steps, batch, build, scramble
from torch import Tensor, nn

from derain.errors import DataError
from derain.train.networks.antialias import AntialiasedDiscriminator, BlurDown, blur_up, instance_norm
from derain.train.networks.patch_sample import PatchProjection
from derain.train.networks.resnet9 import Resnet9
from derain.train.networks.translator import EdgeTranslator
from derain.train.optimisers import Optimisers
from derain.train.recipe import OptimizerConfig, parse_recipe, read_recipe_text
from derain.train.systems import DcdGan, find_system
from derain.train.systems.base import Batch

NAMES = ["dcd-gan edge", "dcd-gan full"]


def made(name: str, **changes: Any) -> DcdGan:
    torch.manual_seed(1)
    kind = find_system("dcd-gan")
    system = kind(kind.Config.model_validate({**TINY[name][1], **changes}))
    assert isinstance(system, DcdGan)
    return system


def test_published_sizes() -> None:
    generator = Resnet9()
    assert parameters(generator) == 11_378_179
    blurs = (128 * 9 / 4 + 256 * 9 / 16) / 1000  # SYSTEMS.md counts convolutions with weights alone
    assert kmac_per_pixel(generator, torch.rand(1, 3, 64, 64)) - blurs == pytest.approx(977.3, abs=0.1)
    assert parameters(AntialiasedDiscriminator()) == 2_764_737
    assert parameters(PatchProjection(generator.tap_channels)) == 493_568


def test_edge_size() -> None:
    generator = EdgeTranslator(64, 3)
    assert parameters(generator) == 129_264
    assert kmac_per_pixel(generator, torch.rand(1, 3, 64, 64)) == pytest.approx(17.28, abs=0.01)


def test_the_recipes_build_these_sizes() -> None:
    kind = find_system("dcd-gan")
    for name, count in (("dcd-gan-full", 11_378_179), ("dcd-gan-edge", 129_264)):
        assert parameters(kind(parse_recipe(read_recipe_text(name), name).system_config()).derainer) == count


def test_taps_are_the_published_layers() -> None:
    torch.manual_seed(0)
    network = Resnet9(4, 6)
    scramble(network)
    picture = torch.rand(1, 3, 32, 32)
    seen: dict[str, Tensor] = {}
    for name in ("down1", "down2", "blocks.0", "blocks.4"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    taps = network.encode(picture)
    assert [tap.shape[1] for tap in taps] == network.tap_channels
    for tap, expected in zip(taps, seen.values(), strict=True):
        assert torch.equal(tap, expected)
    assert torch.equal(network.decode(taps, picture), network(picture))


def test_blurred_resampling_is_the_published_filters() -> None:
    x = torch.rand(2, 5, 8, 12, dtype=torch.float64)
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(row, row).expand(5, 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(BlurDown(5).double()(x), F.conv2d(padded, kernel, groups=5)[..., ::2, ::2])
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(row, row).expand(5, 1, 4, 4)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, kernel, stride=2, padding=2, groups=5)[..., 1:-1, 1:-1]
    torch.testing.assert_close(blur_up(x), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_has_the_right_gradient_in_every_memory_layout(layout: torch.memory_format) -> None:
    """With a batch of one and a gradient that is channels-last, torch's own InstanceNorm has not (2.13 on a CPU)."""
    x = torch.randn(1, 8, 12, 10, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    for gradient_layout in (torch.contiguous_format, torch.channels_last):
        gradient = torch.randn(1, 8, 12, 10, dtype=torch.float64).contiguous(memory_format=gradient_layout)
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        by_hand = (x - mean) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(instance_norm(x), by_hand)
        ours, expected = (torch.autograd.grad(y, x, gradient)[0] for y in (instance_norm(x), by_hand))
        torch.testing.assert_close(ours, expected)


def _before_normalisation(system: nn.Module) -> set[str]:
    """Biases that InstanceNorm takes away again: their true gradient is zero."""
    plain = ("last.bias", "layers.0.bias", "layers.9.bias", "layers.10.bias")
    tapped = ("down1.bias", "down2.bias")
    names = {name for name, _ in system.named_parameters() if name.endswith("bias") and "project" not in name}
    return {name for name in names if not name.endswith((*plain, *tapped))}


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_trains_every_parameter_of_every_group_once(name: str, mode: str) -> None:
    system = made(name, mode=mode)
    assert {id(p) for group in system.parameter_groups().values() for p in group} == {
        id(p) for p in system.parameters()
    }
    scramble(system)
    steps = Steps(system)
    losses = steps.step()
    assert steps.order == ["discriminator", "generator"]
    assert all(torch.isfinite(value) and not value.requires_grad for value in losses.values())
    terms = {name for name in losses if name not in ("generator", "discriminator_clean", "discriminator_rain")}
    assert ({"cycle_rain", "cycle_clean"} <= terms) == (mode == "paper")
    assert float(losses["generator"]) == pytest.approx(sum(float(losses[name]) for name in terms), rel=1e-5)
    normalised = _before_normalisation(system) if name == NAMES[1] else set()
    for label, parameter in system.named_parameters():
        if label not in normalised:
            assert steps.norms.get(id(parameter), 0.0) > 1e-7, f"no gradient reaches {label}"


@pytest.mark.parametrize(("mode", "factor", "betas"), [("paper", 1.0, (0.5, 0.99)), ("official", 10.0, (0.9, 0.999))])
def test_projections_learn_at_the_rate_of_the_authors_code(
    mode: str, factor: float, betas: tuple[float, float]
) -> None:
    """Adam's first step is as long as the learning rate, whatever the gradient; then the moments of ``betas`` show."""
    system = made(NAMES[0], mode=mode)
    config = OptimizerConfig(learning_rate=1e-3, betas=(0.5, 0.99), warmup=0, schedule="constant")
    optimisers = Optimisers(system, config, Fabric(accelerator="cpu"))
    projections = {id(p) for p in (*system.project_clearer.parameters(), *system.project_rainer.parameters())}
    before = {id(p): p.detach().clone() for p in system.parameters()}
    optimisers.set_rates(0, 100)
    optimisers.optimise("generator", torch.stack([p.sum() for p in system.parameter_groups()["generator"]]).sum(), 0)
    for parameter in system.parameter_groups()["generator"]:
        moved = float((before[id(parameter)] - parameter).detach().abs().mean())
        assert moved == pytest.approx(1e-3 * (factor if id(parameter) in projections else 1.0), rel=1e-3)
    state = optimisers.state()["generator"]
    assert [tuple(group["betas"]) for group in state["param_groups"]] == [(0.5, 0.99), betas][
        : len(state["param_groups"])
    ]
    assert len(state["param_groups"]) == (1 if mode == "paper" else 2)


def test_losses_by_hand() -> None:
    """Identity, cycle and adversarial terms from the networks' own outputs, pictures in [-1, 1]."""
    system = made(NAMES[1], mode="paper")
    scramble(system)
    given = batch(system)
    rainy, clean = given.both_sides()
    with torch.no_grad():
        derained = system.clearer(rainy)
        score = system.judge_clean(derained)[0]
        expected = {
            "identity_clean": 0.5 * 2 * (system.clearer(clean) - clean).abs().mean(),
            "cycle_rain": 10 * 2 * (system.rainer(derained) - rainy).abs().mean(),
            "adversarial_clean": 0.5 * (1 - score).clamp(min=0).mean(),
        }
        real = (1 - system.judge_clean(clean)[0]).clamp(min=0).mean()
        expected["discriminator_clean"] = 0.5 * (real + (1 + score).clamp(min=0).mean())
    losses = Steps(system, rate=0.0).step(given)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_generators_are_judged_by_the_discriminator_of_the_same_step() -> None:
    system = made(NAMES[0])
    scramble(system)
    given = batch(system)
    with torch.no_grad():
        derained = system.clearer(given.both_sides()[0])
        stale = 0.5 * (1 - system.judge_clean(derained)[0]).clamp(min=0).mean()
    value = Steps(system, rate=0.02).step(given)["adversarial_clean"]
    with torch.no_grad():
        expected = 0.5 * (1 - system.judge_clean(derained)[0]).clamp(min=0).mean()
    torch.testing.assert_close(value, expected)
    assert not torch.isclose(stale, expected, rtol=0.01)


def test_a_tiny_one_learns_its_objective() -> None:
    """Which place is which: below chance, log 16, and falling."""
    system = made(NAMES[0], mode="paper", loss={"adversarial": 0.1})
    steps = Steps(system, rate=4e-3)
    history = [steps.step() for _ in range(60)]
    early, late = (
        sum(float(losses["contrastive_clean"] + losses["contrastive_rain"]) for losses in part) / len(part) / 2
        for part in (history[5:15], history[-10:])
    )
    assert late < 0.95 * early
    assert late < math.log(16)
    assert float(history[-1]["identity_clean"]) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_fresh_discriminators_are_awake(name: str) -> None:
    """Without normalisation and with the published initialisation their scores would all be zero, for long."""
    system = made(name)
    rainy, _ = batch(system).both_sides()
    steps = Steps(system, rate=2e-3)
    history = [float(steps.step()["discriminator_rain"]) for _ in range(12)]
    assert history[-1] < 0.95
    assert float(system.judge_rain(rainy)[0].detach().std()) > 0.01


def test_without_unpaired_pictures_it_says_so() -> None:
    with pytest.raises(DataError, match="unpaired"):
        Steps(build(NAMES[0])).step(Batch())
