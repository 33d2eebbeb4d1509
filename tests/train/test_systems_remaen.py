"""ReMAEN: size, recurrence, losses by hand, and that a tiny one learns to derain held-out pictures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counts import kmac_per_pixel, parameters
from tiny_systems import Steps, batch, build, crops, pictures, rain_on, scramble

from derain.errors import DataError
from derain.train.losses.edge import edge_loss
from derain.train.networks.remaen import ChannelAttention, ConvGru, EdgeRemaen, MultiScaleBlock, Remaen
from derain.train.recipe import parse_recipe, read_recipe_text
from derain.train.systems import find_system
from derain.train.systems.base import Batch

NAMES = ["remaen edge", "remaen full"]


def test_published_size() -> None:
    network = Remaen()
    assert parameters(network) == 495_771
    assert kmac_per_pixel(network, torch.rand(1, 3, 64, 64)) == pytest.approx(1605, abs=0.5)


def test_edge_size() -> None:
    network = EdgeRemaen(32, 3)
    assert parameters(network) == 65_272
    assert kmac_per_pixel(network, torch.rand(1, 3, 64, 64)) == pytest.approx(15.55, abs=0.01)


def test_the_recipes_build_these_sizes() -> None:
    kind = find_system("remaen")
    for name, count in (("remaen-full", 495_771), ("remaen-edge", 65_272)):
        assert parameters(kind(parse_recipe(read_recipe_text(name), name).system_config()).derainer) == count


def test_the_multi_scale_block_applies_the_same_weights_at_three_dilations() -> None:
    torch.manual_seed(0)
    block = MultiScaleBlock(3, 8)
    x = torch.rand(2, 3, 16, 16)
    total = torch.zeros(2, 8, 16, 16)
    for d in (1, 2, 3):
        h = F.leaky_relu(F.conv2d(x, block.first.weight, block.first.bias, padding=d, dilation=d), 0.2)
        total += F.leaky_relu(F.conv2d(h, block.second.weight, block.second.bias, padding=d, dilation=d), 0.2)
    squeeze, excite = block.attention.squeeze, block.attention.excite
    scale = torch.sigmoid(excite(F.relu(squeeze(total.mean((2, 3))))))
    torch.testing.assert_close(block(x), total * scale[:, :, None, None])


def test_the_gru_without_a_state_is_one_with_a_state_of_zero_but_for_its_biases() -> None:
    torch.manual_seed(0)
    gru = ConvGru(4)
    with torch.no_grad():
        for layer in (gru.from_state, gru.candidate):
            assert layer.bias is not None
            layer.bias.zero_()
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(gru(x, None), gru(x, torch.zeros(1, 4, 8, 8)))


def test_the_edge_network_starts_as_identity() -> None:
    rainy = torch.rand(1, 3, 32, 32)
    assert torch.equal(EdgeRemaen(8, 2)(rainy), rainy)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_trains_every_parameter_once(name: str) -> None:
    system = build(name)
    scramble(system)
    for module in system.modules():
        if isinstance(module, ChannelAttention):
            torch.nn.init.ones_(module.squeeze.bias)  # one unit at this width: it must not happen to be off
    steps = Steps(system)
    losses = steps.step()
    assert steps.order == ["generator"]
    assert all(torch.isfinite(value) and not value.requires_grad for value in losses.values())
    for label, parameter in system.named_parameters():
        assert steps.norms.get(id(parameter), 0.0) > 0, f"no gradient reaches {label}"


def test_losses_by_hand() -> None:
    system = build(NAMES[1])
    given = batch(system)
    assert given.paired is not None
    assert given.truth is not None
    with torch.no_grad():
        derained = system.derainer.generator(given.paired.picture)
    losses = Steps(system, rate=0.0).step(given)
    squared = ((derained - given.truth) ** 2).mean()
    torch.testing.assert_close(losses["squared"], squared)
    torch.testing.assert_close(losses["generator"], squared + 0.1 * edge_loss(derained, given.truth))


def test_a_tiny_one_derains_pictures_it_has_not_seen() -> None:
    torch.manual_seed(1)
    kind = find_system("remaen")
    system = kind(kind.Config.model_validate({"network": {"width": 16, "stages": 2}}))
    steps = Steps(system)
    for step in range(100):
        truth = pictures(4, 10 + step)
        steps.step(Batch(paired=crops(rain_on(truth, 500 + step)), truth=truth))
    truth = pictures(8, 1)
    rainy = rain_on(truth, 2)
    with torch.no_grad():
        derained, _ = system.derainer(rainy)
    before, after = (float(((picture - truth) ** 2).mean()) for picture in (rainy, derained))
    assert after < 0.7 * before


def test_without_pairs_it_says_so() -> None:
    with pytest.raises(DataError, match="pairs"):
        Steps(build(NAMES[0])).step(Batch())
