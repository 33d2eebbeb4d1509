"""A teacher guides a student, stays out of its checkpoint, and cannot be swapped between the parts of a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_recipe
from tiny_systems import build, pictures

from derain.errors import CheckpointError, UsageError
from derain.train.checkpoint import load_deployable, read_checkpoint
from derain.train.data.folders import Pictures
from derain.train.distil import Distiller, predict
from derain.train.machine import Machine
from derain.train.networks.context import thumbnail
from derain.train.recipe import DistilConfig
from derain.train.systems.base import Batch, Crops
from derain.train.trainer import Trainer

MACHINE = Machine(accelerator="cpu", workers=0, threads=1)
PAIRS_ONLY: dict[str, Any] = {"cycle_from": 1000}
WIDER = {"extractor_width": 12, "extractor_stages": 1, "generator_width": 12, "generator_stages": 1, "fog_width": 4}


@pytest.fixture
def teacher(tiny_pictures: Pictures, tmp_path: Path) -> Path:
    """A wider network than the student, with an output that differs from its input."""
    recipe = tiny_recipe("acgf", name="teacher", steps=1, config={**PAIRS_ONLY, "network": WIDER})
    path = Trainer(recipe, tiny_pictures, tmp_path / "teacher", MACHINE).run()
    state = read_checkpoint(path)
    generator = torch.Generator().manual_seed(5)
    for name in ("generator.tail.weight", "generator.tail.bias"):
        state["derainer"][name] = torch.randn(state["derainer"][name].shape, generator=generator) * 0.1
    torch.save(state, path)
    return path


def distilled(teacher: Path, steps: int = 4, **distil: Any) -> str:
    return tiny_recipe(
        "acgf",
        steps=steps,
        validate_every=100,
        config=PAIRS_ONLY,
        distil={"checkpoint": str(teacher), **distil},
    )


def disagreement(student: Path, teacher: Path) -> float:
    generator = torch.Generator().manual_seed(8)
    picture, thumb = (torch.rand(4, channels, 32, 32, generator=generator) for channels in (3, 9))
    crops = Crops(picture * 0.6 + 0.2, thumb)
    with torch.no_grad():
        outputs = [predict(load_deployable(path)[0], crops)[0] for path in (student, teacher)]
    return float((outputs[0] - outputs[1]).abs().mean())


def test_the_student_comes_nearer_to_its_teacher(teacher: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    taught = distilled(teacher, 40, weight=1000.0).replace("learning_rate = 0.002", "learning_rate = 0.01\nema = 0.0")
    assert "ema" in taught
    alone = taught[: taught.index("[distil]")]
    before = Trainer(alone, tiny_pictures, tmp_path / "alone", MACHINE).run()
    after = Trainer(taught, tiny_pictures, tmp_path / "taught", MACHINE).run()
    assert disagreement(after, teacher) < 0.8 * disagreement(before, teacher)


def test_the_checkpoint_names_the_teacher_and_does_not_hold_it(
    teacher: Path, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    path = Trainer(distilled(teacher), tiny_pictures, tmp_path / "student", MACHINE).run()
    state = read_checkpoint(path)
    plain = Trainer(tiny_recipe("acgf", steps=1, config=PAIRS_ONLY), tiny_pictures, tmp_path / "plain", MACHINE).run()
    assert state["system"].keys() == read_checkpoint(plain)["system"].keys()
    digest = hashlib.sha256(teacher.read_bytes()).hexdigest()
    assert load_deployable(path)[1].teacher == {"name": "teacher", "sha256": digest}
    assert load_deployable(plain)[1].teacher == {}
    teacher.unlink()
    load_deployable(path)  # the student stands alone


def test_the_teacher_does_not_learn(teacher: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    trainer = Trainer(distilled(teacher, attention=1.0), tiny_pictures, tmp_path / "student", MACHINE)
    trainer.run()
    assert trainer._distiller is not None
    known, _ = load_deployable(teacher)
    for old, new in zip(known.parameters(), trainer._distiller.teacher.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
    assert {"distil", "distil_attention"} <= trainer._alarms.state().keys()


FEATURES: dict[str, Any] = {"features": 1.0, "student_layer": "generator.stage", "teacher_layer": "generator.stage"}


def test_features_are_learned_through_a_projection_that_stays_behind(
    teacher: Path, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    recipe = distilled(teacher, 40, **FEATURES).replace("learning_rate = 0.002", "learning_rate = 0.01")
    trainer = Trainer(recipe, tiny_pictures, tmp_path / "student", MACHINE)
    history: list[float] = []
    step = trainer._train_step

    def note(parts: Any) -> dict[str, float]:
        losses = step(parts)
        history.append(losses["distil_features"])
        return losses

    trainer._train_step = note  # type: ignore[method-assign]
    path = trainer.run()
    assert sum(history[-5:]) < 0.7 * sum(history[:5])
    state = read_checkpoint(path)
    assert state["distil"]["project.weight"].shape == (12, 8, 1, 1)
    assert not any("project" in key for key in (*state["derainer"], *state["system"]))
    teacher.unlink()
    load_deployable(path)


def test_a_run_with_features_resumes_exactly(teacher: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    recipe = distilled(teacher, 6, **FEATURES)
    whole = Trainer(recipe, tiny_pictures, tmp_path / "whole", MACHINE).run()
    first = Trainer(recipe, tiny_pictures, tmp_path / "parts", MACHINE)
    step = first._train_step

    def interrupt(parts: Any) -> dict[str, float]:
        first._asked = first._step == 3
        return step(parts)

    first._train_step = interrupt  # type: ignore[method-assign]
    first.run()
    assert first.stopped_early
    parts = Trainer(recipe, tiny_pictures, tmp_path / "parts", MACHINE, resume=True).run()
    one, other = read_checkpoint(whole), read_checkpoint(parts)
    for table in ("distil", "system", "derainer"):
        assert all(torch.equal(value, other[table][name]) for name, value in one[table].items())


def test_the_feature_loss_by_hand(teacher: Path) -> None:
    """A full-size student at full resolution against a teacher on the 1/4 grid: averaged down, projected, relative."""
    student = build("acgf full").derainer
    config = DistilConfig(
        checkpoint=str(teacher), features=0.5, student_layer="generator.tail", teacher_layer="generator.stage"
    )
    distiller = Distiller(config, student, 32, torch.device("cpu"))
    crops = Crops(pictures(2, 3), thumbnail(pictures(2, 3)))
    seen: dict[str, torch.Tensor] = {}
    student.generator.tail.register_forward_hook(lambda _, __, out: seen.__setitem__("student", out))
    distiller.teacher.get_submodule("generator.stage").register_forward_hook(
        lambda _, __, out: seen.__setitem__("teacher", out)
    )
    value = distiller.losses(student, Batch(rainy=crops))["distil_features"]
    weight, bias = distiller.parameters()
    projected = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], seen["student"]) + bias[None, :, None, None]
    down = projected.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))
    expected = 0.5 * ((down - seen["teacher"]) ** 2).mean() / (seen["teacher"] ** 2).mean()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student_layer": "generator.stages"}, r"student_layer 'generator\.stages' is no layer.*generator\.stage"),
        ({"teacher_layer": "context.affine"}, r"teacher_layer 'context\.affine' has no features"),
        ({"teacher_layer": ""}, "go together"),
        ({"features": 0.0}, "go together"),
    ],
)
def test_a_layer_without_features_is_told(
    changes: dict[str, Any], message: str, teacher: Path, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        Trainer(distilled(teacher, **{**FEATURES, **changes}), tiny_pictures, tmp_path / "x", MACHINE).run()


def test_another_teacher_does_not_go_on(teacher: Path, tiny_pictures: Pictures, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    Trainer(distilled(teacher), tiny_pictures, folder, MACHINE).run()
    state = read_checkpoint(teacher)
    state["derainer"]["generator.tail.bias"] += 0.1
    torch.save(state, teacher)
    with pytest.raises(CheckpointError, match="another teacher"):
        Trainer(distilled(teacher), tiny_pictures, folder, MACHINE, resume=True).run()


def test_any_system_may_teach_but_not_attention_it_has_not(tiny_pictures: Pictures, tmp_path: Path) -> None:
    teacher = Trainer(
        tiny_recipe("remaen", name="teacher", steps=1), tiny_pictures, tmp_path / "teacher", MACHINE
    ).run()
    Trainer(distilled(teacher, 2), tiny_pictures, tmp_path / "a", MACHINE).run()
    with pytest.raises(UsageError, match="attention"):
        Trainer(distilled(teacher, attention=1.0), tiny_pictures, tmp_path / "b", MACHINE).run()


def test_a_missing_teacher_is_one_clear_error(tiny_pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nobody\.ckpt"):
        Trainer(distilled(tmp_path / "nobody.ckpt"), tiny_pictures, tmp_path / "c", MACHINE).run()
