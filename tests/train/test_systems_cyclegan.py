"""DerainCycleGAN: sizes, what each mode trains, and that a tiny one learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from counts import kmac_per_pixel, parameters
from pydantic import ValidationError
from tiny_systems import TINY, Steps, batch, build, scramble

from derain.errors import DataError
from derain.train.networks.drfn import Drfn, DrfnConfig
from derain.train.networks.multiscale import MultiScaleDiscriminator
from derain.train.networks.translator import EdgeTranslator
from derain.train.networks.uarse import EdgeUarse, Uarse
from derain.train.recipe import parse_recipe, read_recipe_text
from derain.train.systems import DerainCycleGan, find_system
from derain.train.systems.base import Batch

NAMES = ["derain-cyclegan edge", "derain-cyclegan full"]
PAPER_ALONE = {"rain_attention", "mixture", "perceptual"}


def made(name: str, **changes: Any) -> DerainCycleGan:
    torch.manual_seed(1)
    kind = find_system("derain-cyclegan")
    system = kind(kind.Config.model_validate({**TINY[name][1], **changes}))
    assert isinstance(system, DerainCycleGan)
    return system


def test_published_sizes() -> None:
    picture, mask = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    extractor, judge = Uarse(), MultiScaleDiscriminator()
    generator = Drfn(DrfnConfig(attention="guide", residual="none"))
    assert [parameters(network) for network in (extractor, generator, judge)] == [167_809, 6_066_179, 8_271_171]
    assert kmac_per_pixel(extractor, picture) == pytest.approx(1004, abs=0.5)
    assert kmac_per_pixel(generator, picture, mask) == pytest.approx(496.7, abs=0.1)


def test_edge_sizes() -> None:
    picture, mask = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    extractor, generator = EdgeUarse(32, 4), EdgeTranslator(64, 2, guided=True)
    assert parameters(extractor) + parameters(generator) == 175_456
    assert kmac_per_pixel(extractor, picture) + kmac_per_pixel(generator, picture, mask) == pytest.approx(
        19.01, abs=0.01
    )


def test_the_recipes_build_these_sizes() -> None:
    full = parse_recipe(read_recipe_text("derain-cyclegan-full"), "full").system_config()
    edge = parse_recipe(read_recipe_text("derain-cyclegan-edge"), "edge").system_config()
    kind = find_system("derain-cyclegan")
    assert parameters(kind(edge).derainer) == 175_456
    assert parameters(kind(full).derainer) == 167_809 + 6_066_179


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_trains_every_parameter_of_every_group_once(name: str, mode: str) -> None:
    system = made(name, mode=mode)
    assert {id(p) for group in system.parameter_groups().values() for p in group} == {
        id(p) for p in system.parameters()
    }
    scramble(system)
    steps = Steps(system)
    before = [parameter.detach().clone() for parameter in system.parameters()]
    losses = steps.step()
    assert steps.order == ["generator", "discriminator"]
    assert all(torch.isfinite(value) and not value.requires_grad for value in losses.values())
    terms = {name for name in losses if name not in ("generator", "discriminator_clean", "discriminator_rain")}
    assert (terms >= PAPER_ALONE) == (mode == "paper")
    assert bool(PAPER_ALONE & terms) == (mode == "paper")
    assert float(losses["generator"]) == pytest.approx(sum(float(losses[name]) for name in terms), rel=1e-5)
    for (label, parameter), old in zip(system.named_parameters(), before, strict=True):
        assert steps.norms.get(id(parameter), 0.0) > 0, f"no gradient reaches {label}"
        assert not torch.equal(parameter, old), f"{label} did not move"


def test_losses_by_hand() -> None:
    """From the networks' own outputs, in the paper's units, pictures in [-1, 1]."""
    system = made(NAMES[1], mode="official")
    scramble(system)
    given = batch(system)
    rainy, clean = given.both_sides()
    with torch.no_grad():
        masks = [system.derainer.extractor(picture) for picture in (rainy, clean)]
        derained, rained = system.derainer.remove(rainy, masks[0]), system.rainer(clean, masks[1])
        again = system.rainer(derained, system.derainer.extractor(derained))
        finest = system.judge_clean(derained)[0]
        real, fake = system.judge_rain(rainy), system.judge_rain(rained)
        expected = {
            "cycle_rain": 10 * ((again * 2 - 1) - (rainy * 2 - 1)).abs().mean(),
            "clean_attention": 10 * (masks[1] ** 2).mean(),
            "reconstruction": 10 * ((masks[0] + (derained * 2 - 1) - (rainy * 2 - 1)) ** 2).mean(),
            "adversarial_clean": ((finest - 1) ** 2).mean(),
        }
    losses = Steps(system, rate=0.0).step(given)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    sides = [((score - 1) ** 2).mean() for score in real] + [(score**2).mean() for score in fake]
    torch.testing.assert_close(losses["discriminator_rain"], torch.stack(sides).sum() / 6)


def test_only_the_paper_mode_judges_generators_at_every_scale() -> None:
    values = {}
    for mode in ("paper", "official"):
        system = made(NAMES[0], mode=mode)
        with torch.no_grad():
            for parameter in system.judge_clean.scales[2].parameters():
                parameter.fill_(1.0)
        values[mode] = float(Steps(system, rate=0.0).step()["adversarial_clean"])
    assert values["paper"] > 10 * values["official"]


def test_scales_that_no_loss_reads_are_not_computed() -> None:
    judge = MultiScaleDiscriminator(8)
    calls = []
    for index, scale in enumerate(judge.scales):
        scale.register_forward_hook(lambda *_, index=index: calls.append(index))
    picture = torch.rand(2, 3, 64, 64)
    finest, every = judge(picture, scales=1), judge(picture)
    assert calls == [0, 0, 1, 2]
    assert torch.equal(finest[0], every[0])
    assert [len(finest), len(every)] == [1, 3]


def test_the_mixture_follows_what_is_taken_off() -> None:
    system = made(NAMES[0], mode="paper")
    before = system.mixture.variances.clone()
    Steps(system).step()
    assert not torch.equal(system.mixture.variances, before)
    official = made(NAMES[0], mode="official")
    Steps(official).step()
    assert torch.equal(official.mixture.variances, before)


def test_the_log_says_which_perceptual_loss_ran() -> None:
    assert "SqueezeNet" in made(NAMES[0], mode="paper").notes()[0]
    assert made(NAMES[0], mode="official").notes() == []


def test_a_tiny_one_learns_its_objective() -> None:
    """From random weights, for at edge size the fresh networks are the identity, and there the cycle is closed."""
    system = made(NAMES[0], mode="official", loss={"adversarial": 0.1})
    scramble(system.derainer)
    scramble(system.rainer)
    steps = Steps(system, rate=4e-3)
    history = [steps.step() for _ in range(40)]
    for name in ("reconstruction", "cycle_rain", "cycle_clean"):
        first, last = (sum(float(losses[name]) for losses in part) for part in (history[:5], history[-5:]))
        assert last < 0.7 * first, name


def test_it_rains_with_the_mask_of_a_rainy_picture() -> None:
    system = made(NAMES[1])
    scramble(system)
    rainy, clean = batch(system).both_sides()
    with torch.no_grad():
        first = system.rain(clean, rainy, torch.Generator().manual_seed(1))
        second = system.rain(clean, rainy, torch.Generator().manual_seed(2))
        other = system.rain(clean, clean, torch.Generator().manual_seed(1))
    assert first.shape == clean.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not torch.equal(first, second)
    assert float((first - other).abs().mean()) > float((first - second).abs().mean())


def test_without_unpaired_pictures_it_says_so() -> None:
    with pytest.raises(DataError, match="unpaired"):
        Steps(build(NAMES[0])).step(Batch())


def test_the_table_of_the_other_size_is_refused() -> None:
    config = find_system("derain-cyclegan").Config
    with pytest.raises(ValidationError, match="'full' has no effect"):
        config.model_validate({"full": {"generator_width": 8}})
    with pytest.raises(ValidationError, match="'network' has no effect"):
        config.model_validate({"variant": "full", "network": {"generator_width": 8}})
