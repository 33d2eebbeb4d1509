"""The page of results is what its generator makes of the results beside it: nobody edits a figure by hand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from derain.runtime.bench.machine import describe_machine
from derain.runtime.bench.schema import read_result
from derain.runtime.doctor_system import System
from derain.runtime.media.items import Frame
from derain.runtime.media.video_reader import VideoReader

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
SECTIONS = 8


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def generator(_folder: None) -> ModuleType:
    import make_page

    return make_page  # type: ignore[no-any-return]


@pytest.fixture
def measurer(_folder: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that measures, with a folder of its own for results."""
    import measure

    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    return measure


def test_the_page_is_made_of_the_results(generator: Any) -> None:
    made = generator.page(generator.read_results(), generator.read_ratios())
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == made, "run: docs/benchmarks/make_page.py --page-only"


def test_the_page_names_only_files_that_exist() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert len(links) >= 3
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_every_result_on_the_page_has_a_command(generator: Any) -> None:
    names = {step.name for step in generator.steps(200)}
    assert {path.stem for path in generator.RESULTS.glob("*.json")} <= names
    for name, result in generator.read_results().items():
        assert result.source == "derain"
        assert result.machine is not None
        assert result.command.startswith("derain bench "), name
        assert not re.search(r"(^|\s)/", result.command), "a path of this machine"


def test_a_page_without_results_claims_nothing(generator: Any) -> None:
    page = generator.page({}, None)
    assert page.count("Not measured yet") == SECTIONS
    assert "![" not in page


def test_all_fits_into_the_time_it_says(measurer: Any) -> None:
    """13 of 15 minutes; the ratios take the other two."""
    assert sum(step.planned for step in measurer.steps(200)) <= 13 * 60


def test_steps_end_in_time_are_kept_and_taken_up(measurer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real runs of a few frames: one succeeds, one fails, and the next call measures only what is missing."""
    good = measurer.Step("good", "a video", ("nano", "--backend", "onnxruntime", "--frames", "3", "--warmup", "1"), 30,
                         (64, 48, 5))  # fmt: skip
    bad = measurer.Step("bad", "no such model", ("no-such-model",), 30)
    monkeypatch.setattr(measurer, "steps", lambda frames: [good, bad])
    said: list[str] = []
    assert measurer.measure([], 3, 2.0, False, said.append) == ["bad"]
    assert said[0].startswith("[1/2] good: a video; at most 36 s, 2.0 of 2 minutes left")
    assert any("nano, onnxruntime" in line and "from file to file" in line for line in said)
    assert any("failed: Error: There is no model named 'no-such-model'" in line for line in said)
    result = read_result(measurer.RESULTS / "good.json")
    assert "--input rain-64x48-5.mp4 --seconds 30 --json good.json" in result.command
    whole = result.candidates[0].end_to_end
    assert whole is not None
    assert whole.frames == 5
    assert whole.peak_bytes is not None
    before = (measurer.RESULTS / "good.json").read_bytes()
    said.clear()
    assert measurer.measure([], 3, 1.0, False, said.append) == ["bad"]
    assert said[0].startswith("kept: good")
    assert said[1].startswith("[1/1] bad")
    assert (measurer.RESULTS / "good.json").read_bytes() == before
    machine = describe_machine(System())
    assert measurer.is_current(good, machine)
    assert not measurer.is_current(good, machine, datetime.now(timezone.utc) + timedelta(hours=4))
    assert not measurer.is_current(good, machine.model_copy(update={"cpus": 999}))
    other = measurer.Step("good", "", ("nano", "--backend", "openvino", "--frames", "3", "--warmup", "1"), 30)
    assert not measurer.is_current(other, machine)


def test_each_step_gets_less_where_time_runs_out(measurer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(
        measurer, "steps", lambda frames: [measurer.Step(f"s{n}", "", (), 91) for n in range(3)]
    )  # 97 s each
    monkeypatch.setattr(measurer, "run", lambda step, seconds, folder: given.append(seconds) or "skipped")
    measurer.measure([], 3, 2.5, True, lambda text: None)
    assert given == pytest.approx([91 * 150 / 291, 91 * 150 / 194, 91], abs=0.5)


def test_a_video_of_a_length(measurer: Any, tmp_path: Path) -> None:
    measurer.make_video(tmp_path / "v.mp4", 64, 48, 9)
    with VideoReader(tmp_path / "v.mp4") as reader:
        pictures = [item.pixels for item in reader if isinstance(item, Frame)]
    assert len(pictures) == 9
    assert pictures[0].shape == (48, 64, 3)
    assert (pictures[0] != pictures[4]).any()
