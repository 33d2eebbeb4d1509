"""ACGF and AUEID: one step trains what it should and nothing else, tiny ones learn, switches do what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_systems import TINY, Steps, batch, build, rain_on, scramble

from derain.errors import DataError, UsageError
from derain.train.data.batches import BatchConfig, StepBatches
from derain.train.data.folders import Pictures
from derain.train.networks.full import FullDerainer
from derain.train.recipe import parse_recipe, read_recipe_text, shipped_recipes
from derain.train.systems import find_system
from derain.train.systems.base import Batch, Needs, StepContext
from derain.train.systems.cycle import CycleLosses, RainCycle

MINE = [name for name, (system, _) in TINY.items() if system in ("acgf", "aueid")]


def cycle(name: str, **changes: Any) -> RainCycle:
    system, table = TINY[name]
    torch.manual_seed(1)
    kind = find_system(system)
    built = kind(kind.Config.model_validate({**table, **changes}))
    assert isinstance(built, RainCycle)
    return built


@pytest.mark.parametrize("name", MINE)
def test_a_step_trains_every_parameter_of_every_group_once(name: str) -> None:
    system = build(name)
    assert {id(p) for group in system.parameter_groups().values() for p in group} == {
        id(p) for p in system.parameters()
    }
    scramble(system)
    steps = Steps(system)
    before = [parameter.detach().clone() for parameter in system.parameters()]
    losses = steps.step()
    assert steps.order == ["generator", "discriminator"]
    assert all(torch.isfinite(value) and not value.requires_grad for value in losses.values())
    for (label, parameter), old in zip(system.named_parameters(), before, strict=True):
        assert steps.norms.get(id(parameter), 0.0) > 0, f"no gradient reaches {label}"
        assert not torch.equal(parameter, old), f"{label} did not move"


@pytest.mark.parametrize("name", MINE)
def test_the_generators_step_leaves_the_discriminators_alone(name: str) -> None:
    system = build(name)
    judges = system.parameter_groups()["discriminator"]
    seen: list[bool] = []

    def optimise(group: str, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        if group == "generator":
            seen.append(all(p.grad is None for p in judges))
        else:
            assert all(p.requires_grad and p.grad is not None for p in judges)

    system.training_step(batch(system), StepContext(0, torch.Generator().manual_seed(0), optimise))
    assert seen == [True]


@pytest.mark.parametrize("name", MINE)
def test_tiny_ones_fit_the_same_pictures(name: str) -> None:
    steps = Steps(build(name), rate=8e-3)
    first = steps.step()
    for _ in range(14):
        last = steps.step()
    for term in ("cycle_rain", "cycle_clean", "discriminator_rain", "discriminator_clean", "generator"):
        assert last[term] < (0.9 if "discriminator" in term else 0.75) * first[term], term


def test_the_deployed_network_derains_what_it_was_fitted_to() -> None:
    """Not the losses alone: the output comes nearer to the ground truth than the rainy input is."""
    system = cycle("acgf edge", cycle_from=10_000)
    steps = Steps(system, rate=5e-3)
    for _ in range(80):
        steps.step()
    given = batch(system)
    assert given.paired is not None
    assert given.truth is not None
    with torch.no_grad():
        derained, _ = system.derainer(given.paired.picture)
    error, rain = (derained - given.truth).abs().mean(), (given.paired.picture - given.truth).abs().mean()
    assert error < 0.75 * rain


def test_a_step_without_a_cycle_trains_the_derainer_alone() -> None:
    system = cycle("acgf edge", cycle_from=2, cycle_every=3)
    assert [system.needs(step).unpaired for step in range(6)] == [False, False, True, False, False, True]
    steps = Steps(system)
    rain_maker = [parameter.detach().clone() for parameter in system.rfdr.parameters()]
    steps.step()
    assert steps.order == ["generator"]
    assert all(torch.equal(a, b) for a, b in zip(rain_maker, system.rfdr.parameters(), strict=True))


def test_a_picture_without_error_is_worth_the_ceiling() -> None:
    """A fresh network is the identity, and of a dry pair leaves no error."""
    for ceiling in (40.0, 50.0):
        system = cycle("acgf edge", cycle_from=5, loss={"supervised_psnr": 1.0, "psnr_ceiling": ceiling})
        given = batch(system)
        assert given.paired is not None
        given.truth = given.paired.picture
        assert float(Steps(system).step(given)["supervised_psnr"]) == pytest.approx(-ceiling, abs=1e-3)


def test_without_supervised_losses_no_pairs_are_asked_for() -> None:
    system = build("acgf full")
    assert system.needs(0) == (False, True)
    with pytest.raises(DataError, match="nothing to train on"):
        Steps(system).step(Batch())


def test_parallel_runs_the_extractor_on_rainy_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asymmetry of the published figure, and no F extracted that nobody looks at."""
    counts = {}
    for name in ("acgf full", "acgf full guide", "aueid full"):
        system = build(name)
        assert isinstance(system.derainer, FullDerainer)
        seen: list[torch.Tensor] = []
        system.derainer.extractor.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        Steps(system).step()
        counts[name] = len(seen)
    # Parallel: the rainy picture. Guide: pairs, rainy, made, clean. AUEID: pairs, rainy, clean; F again for the made.
    assert counts == {"acgf full": 1, "acgf full guide": 4, "aueid full": 3}


@pytest.mark.parametrize("name", ["aueid edge", "aueid full"])
def test_aueid_guides_both_removals_by_the_same_map(name: str) -> None:
    system = build(name)
    assert isinstance(system, RainCycle)
    scramble(system)
    given = batch(system)
    assert given.rainy is not None
    own = system.remove(given.rainy)
    given_back = system.remove(given.rainy, own.attention)
    torch.testing.assert_close(given_back.derained, own.derained)
    other = system.remove(given.rainy, 1 - own.attention)
    assert not torch.allclose(other.derained, own.derained, atol=1e-4)


def test_noise_makes_acgfs_rain_diverse_and_aueid_has_none() -> None:
    system = build("acgf edge")
    assert isinstance(system, RainCycle)
    scramble(system)
    clean = batch(system).clean
    assert clean is not None
    f = torch.full_like(clean.picture[:, :1], 0.5)
    rains = [
        system.rfdr(clean.picture, f, system.rfdr.noise(clean.picture, torch.Generator().manual_seed(seed))).rainy
        for seed in (1, 1, 2)
    ]
    assert torch.equal(rains[0], rains[1])
    assert not torch.allclose(rains[0], rains[2], atol=1e-3)

    def refuse(*_: object) -> None:
        raise AssertionError("AUEID drew noise")

    for name, alike in (("acgf edge", False), ("aueid edge", True)):
        maker = build(name)
        assert isinstance(maker, RainCycle)
        scramble(maker)
        made = [
            maker.rain(clean.picture, rain_on(clean.picture, 2), torch.Generator().manual_seed(seed)) for seed in (1, 2)
        ]
        assert torch.allclose(made[0], made[1], atol=1e-3) is alike
        assert made[0].shape == clean.picture.shape

    quiet = build("aueid edge")
    assert isinstance(quiet, RainCycle)
    quiet.rfdr.noise = refuse  # type: ignore[assignment,method-assign]
    Steps(quiet).step()


def test_the_second_deraining_cannot_teach_the_rain_maker_unless_told_to() -> None:
    """``detach_rainy``: with every other loss off, RFDR gets a gradient only where the switch lets one through."""
    others = set(CycleLosses.model_fields) - {"consistency", "psnr_ceiling"}
    quiet = dict.fromkeys(others, 0.0)
    for detach in (True, False):
        system = cycle("acgf edge", loss=quiet, detach_rainy=detach)
        scramble(system)
        for parameter in system.rfdr.parameters():
            parameter.requires_grad_(True)
        terms: dict[str, torch.Tensor] = {}
        given = batch(system)
        assert given.rainy is not None
        assert given.clean is not None
        context = StepContext(0, torch.Generator().manual_seed(0), lambda *_: None)
        system._cycle(given.rainy, given.clean, context, terms)
        terms["cycle_clean"].backward()  # type: ignore[no-untyped-call]
        reached = any(p.grad is not None and p.grad.abs().max() > 0 for p in system.rfdr.parameters())
        assert reached is not detach


@pytest.mark.parametrize(
    ("shares", "rain", "expected"),
    [
        ({"synthetic": 1.0}, {"fog_only": 1.0}, [0.0, 1.0]),
        ({"synthetic": 1.0}, {"heavy": 1.0}, [1.0, None]),
        ({"dry": 1.0}, {}, [0.0, 0.0]),
        ({"pairs": 1.0}, {}, [None, None]),
    ],
)
def test_batches_label_what_the_synthesiser_made(
    shares: dict[str, float], rain: dict[str, float], expected: list[float | None], tiny_pictures: Pictures
) -> None:
    """The auxiliary heads of the mixed discriminator learn from these; what is not known is NaN."""
    shares = {"pairs": 0.0, "synthetic": 0.0, "dry": 0.0, **shares}
    config = BatchConfig.model_validate({"batch": 16, "crop": 32, "crops_per_picture": 2, "rain": rain, **shares})
    labels = StepBatches(tiny_pictures, config, 1, 1, lambda _: Needs(True, False))[0].labels
    assert labels is not None
    assert labels.shape == (16, 2)
    for column, value in zip(labels.T, expected, strict=True):
        if value is not None:
            assert (column == value).float().mean() > 0.8
    if shares["pairs"]:
        assert labels.isnan().all()


@pytest.mark.parametrize(
    ("system", "table", "told"),
    [
        ("acgf", {"variant": "full", "network": {}}, "'network' has no effect"),
        ("acgf", {"full": {}}, "'full' has no effect"),
        (
            "acgf",
            {"cycle_from": 5, "loss": {"supervised": 0, "supervised_gradient": 0, "supervised_attention": 0}},
            "ev",
        ),
        ("aueid", {"variant": "full", "full": {"generator": {"attention": "parallel"}}}, "guided by the extractor"),
        ("aueid", {"variant": "full", "full": {"extractor": {"attn": "none"}}}, "local discrepancy"),
        ("aueid", {"network": {"trunk": "shared"}}, "second removal"),
        ("aueid", {"variant": "full", "rfdr": {"model": "rain"}}, "inverts the model"),
        ("acgf", {"discriminator_clean": {"kind": "multiscale", "widths": [8, 12]}}, "double"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(system: str, table: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        find_system(system).Config.model_validate(table)


def test_crops_that_do_not_fit_the_pools_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[data\] crop is 32, its \[config\] crop 48"):
        Steps(cycle("acgf edge", crop=48)).step()


def test_shipped_recipes_are_valid_and_their_crops_agree() -> None:
    names = shipped_recipes()
    assert {"edge", "nano", "acgf-full", "aueid-edge", "aueid-full"} <= set(names)
    for name in names:
        recipe = parse_recipe(read_recipe_text(name), name)
        assert recipe.name == name
        assert getattr(recipe.system_config(), "crop", recipe.data.crop) == recipe.data.crop
