"""ACGF's and AUEID's networks are the published ones by count, and do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny_systems import pictures, scramble
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from derain.train.networks.arfe import Arfe, ArfeConfig, PooledSimilarity, WindowSimilarity, frame_tokens
from derain.train.networks.blocks import local_discrepancy
from derain.train.networks.discriminators import (
    AuxiliaryDiscriminator,
    DiscriminatorConfig,
    MixedDiscriminator,
    build_discriminator,
    head_weights,
)
from derain.train.networks.drfn import Drfn, DrfnConfig, PhysicalParts, invert
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.networks.rfdr import Rfdr, RfdrConfig, reorganise
from derain.train.rain.degradation import degrade, restore

SIDE = 64


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kmac_per_pixel(module: nn.Module, *inputs: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() / 2 / SIDE**2 / 1000


@pytest.fixture(scope="module")
def rainy() -> Tensor:
    return pictures(1, 1, SIDE)


@pytest.fixture(scope="module")
def attention() -> Tensor:
    return torch.full((1, 1, SIDE, SIDE), 0.5)


@pytest.mark.parametrize(
    ("attn", "count", "kmac"),
    [("nonlocal_pooled", 138_145, 835.0), ("none", 130_817, 782.8), ("cosine_window", 138_145, 825.8)],
)
def test_arfe_is_the_published_size(attn: str, count: int, kmac: float, rainy: Tensor) -> None:
    network = Arfe(ArfeConfig.model_validate({"attn": attn}))
    assert parameters(network) == count
    assert kmac_per_pixel(network, rainy) == pytest.approx(kmac, abs=0.3)


@pytest.mark.parametrize(
    ("config", "count", "kmac"),
    [
        (DrfnConfig(residual="none"), 6_064_579, 495.1),
        (DrfnConfig(residual="add"), 6_064_579, 495.1),
        (DrfnConfig(residual="affine"), 6_064_579 + 1_542, 495.2),
        (DrfnConfig(residual="none", attention="guide"), 6_066_179, 496.7),
        (DrfnConfig(attention="guide", prior="physics"), 6_066_179 - 578 + 257 + 16_643 + 12_451, 508.6),
    ],
)
def test_drfn_is_the_published_size(
    config: DrfnConfig, count: int, kmac: float, rainy: Tensor, attention: Tensor
) -> None:
    network = Drfn(config)
    assert parameters(network) == count
    assert kmac_per_pixel(network, rainy, attention) == pytest.approx(kmac, abs=0.05)


def test_rfdr_is_the_published_size(rainy: Tensor, attention: Tensor) -> None:
    network = Rfdr(RfdrConfig(width=64))
    assert parameters(network) == 2_920_360
    assert kmac_per_pixel(network, rainy, attention) == pytest.approx(289.0, abs=0.3)


def test_edge_is_the_size_it_was_designed_for(rainy: Tensor) -> None:
    """SYSTEMS.md 5.2: 19.43 kMAC per pixel for extractor and generator; the thumbnail's head adds a fixed 0.8 M."""
    network = EdgeDerainer(EdgeConfig())
    trunk = kmac_per_pixel(nn.ModuleList([network.extractor])[0], rainy, torch.zeros(1, 32, 16))
    cells = torch.zeros(1, 16, SIDE // 4, SIDE // 4)
    features = torch.zeros(1, 32, SIDE // 4, SIDE // 4)
    trunk += kmac_per_pixel(network.generator, rainy, cells, features, torch.zeros(1, 6, 1, 1))
    assert trunk == pytest.approx(19.43, rel=0.02)


def test_a_coarse_grid_and_stages_of_their_own_cost_what_they_say(rainy: Tensor) -> None:
    small = {
        "extractor_width": 32,
        "extractor_stages": 1,
        "generator_width": 32,
        "generator_stages": 3,
        "trunk": "shared",
    }

    def size(**more: object) -> tuple[int, float]:
        network = EdgeDerainer(EdgeConfig.model_validate({**small, **more}))
        return parameters(network), kmac_per_pixel(network, rainy)

    count, kmac = size()
    stage = 2 * (32 * 32 * 9 + 32)
    own_count, own_kmac = size(generator_weights="own")
    assert (own_count, own_kmac) == (count + 2 * stage, pytest.approx(kmac))
    coarse_count, coarse_kmac = size(coarse_width=64, coarse_stages=2)
    layers = 32 * 64 * 9 + 64, 2 * (64 * 64 * 9 + 64), 64 * 128 + 128
    assert coarse_count == count + sum(layers)
    # Each layer works on the 1/8 grid; the stage's two convolutions run twice.
    assert coarse_kmac == pytest.approx(kmac + (32 * 64 * 9 + 4 * 64 * 64 * 9 + 64 * 128) / 64 / 1000)
    alone_count, alone_kmac = size(coarse_width=64, coarse_stages=2, generator_stages=0)
    assert alone_count == coarse_count - stage
    assert alone_kmac == pytest.approx(coarse_kmac - 3 * 2 * 32 * 32 * 9 / 16 / 1000)


def test_a_generator_without_any_stage_is_refused() -> None:
    with pytest.raises(ValidationError, match="coarse_width"):
        EdgeConfig(generator_stages=0)


@pytest.mark.parametrize("stages", [0, 1])
def test_a_coarse_grid_is_silent_at_first_and_sees_as_far_as_declared(stages: int) -> None:
    config = EdgeConfig.model_validate(
        {"extractor_width": 8, "extractor_stages": 1, "generator_width": 8, "generator_stages": stages}
        | {"coarse_width": 16, "fog_width": 4, "trunk": "shared"}
    )
    network = EdgeDerainer(config).double()
    picture = pictures(1, 3, 512).double()
    torch.testing.assert_close(network(picture)[0], picture)
    scramble(network)
    context = network.frame_context(picture).detach()
    centre = 256
    reach = [0, 0]
    for column in range(centre, centre + 16):
        moved = picture.clone().requires_grad_()
        network.raw(moved, context)[0][0, :, centre, column].sum().backward()
        assert moved.grad is not None
        seen = moved.grad[0].abs().sum((0, 1)).nonzero().flatten()
        reach = [max(reach[0], column - int(seen[0])), max(reach[1], int(seen[-1]) - column)]
    assert max(reach) <= network.spec.receptive_field // 2 + 1
    assert max(reach) > network.spec.receptive_field // 2 - 40


def test_the_multiscale_discriminator_is_the_published_one() -> None:
    judge = build_discriminator(DiscriminatorConfig(kind="multiscale", widths=[64, 128, 256, 512]))
    assert parameters(judge) == pytest.approx(8.27e6, rel=1e-3)
    assert head_weights(judge) == (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize("residual", ["add", "affine"])
def test_a_new_generator_is_the_identity(residual: str) -> None:
    network = Drfn(DrfnConfig.model_validate({"width": 4, "residual": residual}))
    picture = pictures(2, 3)
    torch.testing.assert_close(network(picture)[0], picture)


def test_affine_output_is_gain_offset_and_streaks() -> None:
    """J = I (1 + g) + b - S, with the maps of the 1/4 grid set by hand to constants."""
    network = Drfn(DrfnConfig(width=4))
    assert network.affine is not None
    assert network.affine.bias is not None
    assert network.tail.bias is not None
    with torch.no_grad():
        network.affine.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 0.1, 0.0, -0.1]))
        network.tail.bias.fill_(0.02)
    picture = pictures(1, 3)
    gain = torch.tensor([0.5, 0.0, -0.5]).exp().view(1, 3, 1, 1)
    offset = torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(network(picture)[0], picture * gain + offset - 0.02)


def test_the_physical_prior_gives_parts_and_inverts_them() -> None:
    """With the refinement at zero, as it starts, the output is the closed form of the parts it gives out."""
    network = Drfn(DrfnConfig(width=4, attention="guide", prior="physics"))
    picture = pictures(2, 3)
    derained, parts = network(picture, torch.rand(2, 1, 32, 32))
    assert parts is not None
    assert parts.streaks.shape == parts.transmission.shape == (2, 1, 32, 32)
    assert parts.airlight.shape == (2, 3, 1, 1)
    assert (parts.streaks >= 0).all()
    torch.testing.assert_close(derained, invert(picture, parts))


def _parts(seed: int, least: float) -> tuple[Tensor, PhysicalParts]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    streaks = 0.3 * torch.rand(2, 1, 16, 16, generator=generator, dtype=torch.float64)
    transmission = least + (1 - least) * torch.rand(2, 1, 16, 16, generator=generator, dtype=torch.float64)
    airlight = torch.rand(2, 3, 1, 1, generator=generator, dtype=torch.float64)
    return clean, PhysicalParts(streaks, transmission, airlight)


def test_the_degradation_model_forwards_and_inverted_is_the_clean_picture() -> None:
    clean, parts = _parts(1, 0.1)
    torch.testing.assert_close(invert(reorganise(clean, *parts, "heavy"), parts), clean)


def test_dense_fog_is_inverted_at_a_transmission_of_one_tenth() -> None:
    clean, parts = _parts(2, 0.1)
    thick = parts._replace(transmission=torch.full_like(parts.transmission, 0.02))
    rainy = reorganise(clean, *thick, "heavy")
    expected = (rainy - 0.98 * parts.airlight) / 0.1 - parts.streaks
    torch.testing.assert_close(invert(rainy, thick), expected)


def test_the_degradation_model_is_the_synthesisers() -> None:
    """The tensors of RFDR and the arrays of the rain synthesiser follow one formula, both ways."""
    clean, parts = _parts(3, 0.3)
    arrays = [
        clean[0].permute(1, 2, 0).float().numpy(),
        parts.streaks[0, 0].float().numpy(),
        parts.transmission[0, 0].float().numpy(),
        parts.airlight[0, :, 0, 0].float().numpy(),
    ]
    rainy = reorganise(clean, *parts, "heavy")
    as_image = rainy[0].permute(1, 2, 0).float().numpy()
    np.testing.assert_allclose(degrade(*arrays), np.clip(as_image, 0, 1), atol=1e-5)
    restored = invert(rainy, parts)[0].permute(1, 2, 0).float().numpy()
    np.testing.assert_allclose(restore(as_image, *arrays[1:]), restored, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("heavy", 0.8 * (0.5 + 0.2) + 0.2 * 0.9), ("rain", 0.7), ("screen", 1 - 0.5 * 0.8), ("none", 0.5)],
)
def test_the_models_of_rfdr_by_hand(model: str, expected: float) -> None:
    parts = [torch.tensor(value) for value in (0.5, 0.2, 0.8, 0.9)]
    assert float(reorganise(parts[0], parts[1], parts[2], parts[3], model)) == pytest.approx(expected)


def test_rfdr_gives_out_the_parts_it_is_made_of() -> None:
    network = Rfdr(RfdrConfig(width=4))
    clean = pictures(2, 3)
    made = network(clean, torch.rand(2, 1, 32, 32))
    assert (made.streaks >= 0).all()
    assert ((made.transmission > 0) & (made.transmission < 1)).all()
    torch.testing.assert_close(
        made.unrefined, reorganise(clean, made.streaks, made.transmission, made.airlight, "heavy")
    )
    torch.testing.assert_close(made.rainy, made.unrefined)  # the refinement starts at zero


def test_tokens_are_the_means_of_an_8x8_grid() -> None:
    """On a slope, which bilinear resizing keeps but at the border."""
    slope = torch.arange(64.0)[:, None] * 2 + torch.arange(128.0)
    expected = F.adaptive_avg_pool2d(slope[None, None], 8)
    torch.testing.assert_close(frame_tokens(slope[None, None])[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    torch.testing.assert_close(frame_tokens(slope[None, None]), expected, atol=1.0, rtol=0)
    assert frame_tokens(torch.rand(1, 5, 20, 36)).shape == (1, 5, 8, 8)


def test_pooled_similarity_is_attention_over_the_tokens() -> None:
    """Against torch's own scaled dot product attention."""
    layer = PooledSimilarity(8)
    h = torch.rand(2, 8, 16, 24)
    tokens = frame_tokens(h)
    query, key, value = (
        part(x).flatten(2).transpose(1, 2) for part, x in ((layer.query, h), (layer.key, tokens), (layer.value, tokens))
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(h.shape)
    torch.testing.assert_close(layer(h), layer.output(mixed))


def test_window_similarity_by_a_plain_loop() -> None:
    layer = WindowSimilarity(4)
    h = torch.rand(1, 4, 8, 9)
    with torch.no_grad():
        got = layer(h)
        query, key = F.normalize(layer.query(h), dim=1), F.normalize(layer.key(h), dim=1)
        value = layer.value(h)
        for y, x in ((0, 0), (4, 4), (7, 8), (3, 1)):
            scores, values = [], []
            for j in range(y - 3, y + 4):
                for i in range(x - 3, x + 4):
                    inside = 0 <= j < 8 and 0 <= i < 9
                    scores.append(query[0, :, y, x] @ key[0, :, j, i] if inside else torch.tensor(0.0))
                    values.append(value[0, :, j, i] if inside else torch.zeros(4))
            weights = torch.softmax(torch.stack(scores) / 0.1, 0)
            mixed = (weights[:, None] * torch.stack(values)).sum(0)
            expected = layer.output(mixed.view(1, 4, 1, 1)).flatten()
            torch.testing.assert_close(got[0, :, y, x], expected)


def test_local_discrepancy_of_a_flat_picture_is_zero_up_to_the_border() -> None:
    assert local_discrepancy(torch.full((1, 2, 9, 9), 0.7)).abs().max() < 1e-6
    spike = torch.zeros(1, 1, 9, 9)
    spike[0, 0, 4, 4] = 25.0
    assert float(local_discrepancy(spike)[0, 0, 4, 4]) == pytest.approx(24.0)
    assert float(local_discrepancy(spike)[0, 0, 4, 6]) == pytest.approx(-1.0)


def test_the_recurrence_uses_the_last_map() -> None:
    """Two rounds differ from one, and each round's weights are the same: no parameter is added by a round."""
    torch.manual_seed(0)
    one = Arfe(ArfeConfig(width=4, iterations=1, blocks=1))
    two = Arfe(ArfeConfig(width=4, iterations=2, blocks=1))
    two.load_state_dict(one.state_dict())
    picture = pictures(1, 3)
    assert not torch.allclose(one(picture), two(picture), atol=1e-4)


def test_the_mixed_heads_see_their_bands() -> None:
    """Streaks move the rain head and hardly the fog head; a veil moves the fog head and hardly the rain head."""
    torch.manual_seed(0)
    judge = build_discriminator(DiscriminatorConfig(kind="mixed", widths=[8, 16]))
    assert isinstance(judge, MixedDiscriminator)
    scramble(judge, 0.05)
    clean = torch.full((1, 3, 64, 64), 0.4)
    chequers = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2) * 0.4 - 0.2
    changes = {}
    for name, picture in (("streaks", clean + chequers), ("veil", clean + 0.2)):
        with torch.no_grad():
            moved = [(a - b).abs().mean() for a, b in zip(judge(picture), judge(clean), strict=True)]
        changes[name] = [float(value) for value in moved]
    _, rain, fog = changes["streaks"]
    assert fog < 1e-5
    assert rain > 1e-3
    _, rain, fog = changes["veil"]
    assert rain < 1e-5
    assert fog > 1e-3


def test_auxiliary_heads_are_one_map_each() -> None:
    judge = build_discriminator(DiscriminatorConfig(kind="mixed_ac", widths=[4, 8]))
    assert isinstance(judge, AuxiliaryDiscriminator)
    assert [tuple(score.shape) for score in judge(pictures(2, 1))] == [(2, 1, 8, 8)] * 3
    assert len(head_weights(judge)) == 3
