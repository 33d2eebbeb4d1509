"""The rain gate: what passes, when it opens and closes, and what it finds on real material."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import REGULAR, frames_of, make_video
from numpy.typing import NDArray
from typer.testing import CliRunner

from derain.card import read_card
from derain.cli import app
from derain.demo import SAMPLE
from derain.errors import UsageError
from derain.images import list_images, read_image
from derain.models import shipped
from derain.rain_intensity import USUAL_HALF, intensity
from derain.runtime import launch
from derain.runtime.gate import GateSettings, RainGate
from derain.runtime.media.items import Frame
from derain.runtime.parts import PartModel
from derain.runtime.pipeline import Derained

WET, DRY = 0.05, 0.0001


def rain_map(level: float) -> NDArray[np.float32]:
    return np.full((12, 18), level, np.float32)


class Weather:
    """Tells the rain by the first pixel of a frame; counts who was asked."""

    def __init__(self) -> None:
        self.looks = 0
        self.runs = 0
        self.maps = 0

    def look(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.looks += 1
        return rain_map(WET if pixels[0, 0, 0] else DRY)

    def derain(
        self, pixels: NDArray[np.uint8], attention: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        self.runs += 1
        self.maps += attention
        return pixels // 2, rain_map(WET if pixels[0, 0, 0] else DRY) if attention else None


def stream(*pieces: tuple[bool, float]) -> list[Frame]:
    """Frames at 30 a second; each piece: whether it rains, for how many seconds."""
    wet = [rainy for rainy, seconds in pieces for _ in range(round(30 * seconds))]
    return [
        Frame(np.full((8, 8, 3), 200 if rainy else 0, np.uint8), index, seconds=index / 30)
        for index, rainy in enumerate(wet)
    ]


def test_dry_frames_pass_bit_for_bit_at_a_small_cost() -> None:
    weather = Weather()
    gate = RainGate(weather.derain, weather.look)
    frames = stream((False, 20))
    results = [gate(frame) for frame in frames]
    assert all(result.clean is frame.pixels and result.gated for result, frame in zip(results, frames, strict=True))
    assert weather.runs == 0
    assert weather.looks == gate.looks == 40
    assert gate.passed == 600
    assert all(result.intensity is not None and result.intensity < 0.05 for result in results)


def test_rain_opens_soon_and_closes_late_and_only_once() -> None:
    weather = Weather()
    settings = GateSettings()
    gate = RainGate(weather.derain, weather.look, settings=settings)
    frames = stream((False, 10), (True, 20), (False, 20))
    states = [not gate(frame).gated for frame in frames]
    changes = [index / 30 for index in range(1, len(states)) if states[index] != states[index - 1]]
    assert len(changes) == 2
    assert 10 <= changes[0] <= 10 + 2 * settings.memory
    assert 30 + settings.hold <= changes[1] <= 30 + settings.hold + 4 * settings.memory
    assert weather.maps <= weather.runs / 10, "the map is asked for at the low rate only"


def test_a_short_glitch_does_not_open_and_a_short_pause_does_not_close() -> None:
    gate = RainGate(Weather().derain, Weather().look)
    assert all(gate(frame).gated for frame in stream((False, 10), (True, 0.1), (False, 10)))
    gate = RainGate(Weather().derain, Weather().look)
    assert not any(gate(frame).gated for frame in stream((True, 10), (False, 4), (True, 10)))


def test_the_hysteresis_holds_between_the_thresholds() -> None:
    settings = GateSettings(wet=0.6, dry=0.2, memory=0, hold=1)
    level = 0.0

    def look(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return rain_map(0.006 * level / (1 - level))

    def derain(pixels: NDArray[np.uint8], attention: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return pixels, look(pixels)

    gate = RainGate(derain, look, settings=settings)
    seen = []
    for index, value in enumerate([0.05] * 5 + [0.4] * 5 + [0.7] * 5 + [0.4] * 5 + [0.1] * 5):
        level = value
        gate(Frame(np.zeros((2, 2, 3), np.uint8), index, seconds=float(index)))
        seen.append(gate.raining)
    assert seen == [False] * 10 + [True] * 10 + [False] * 5


@pytest.mark.parametrize(("mode", "maps"), [("always", 20), ("off", 0)])
def test_other_modes_derain_every_frame(mode: str, maps: int) -> None:
    weather = Weather()
    gate = RainGate(weather.derain, weather.look, mode)  # type: ignore[arg-type]
    results = [gate(frame) for frame in stream((False, 10))]
    assert weather.runs == 300
    assert not any(result.gated for result in results)
    assert weather.maps + weather.looks == maps
    assert (results[-1].intensity is None) == (mode == "off")


def test_without_an_attention_graph_the_whole_one_looks() -> None:
    weather = Weather()
    gate = RainGate(weather.derain)
    assert all(gate(frame).gated for frame in stream((False, 10)))
    assert weather.runs == weather.maps == 20


def test_a_clock_that_jumps_back_is_looked_at_again() -> None:
    gate = RainGate(Weather().derain, Weather().look)
    for frame in stream((False, 3)):
        gate(frame)
    looks = gate.looks
    gate(Frame(np.zeros((2, 2, 3), np.uint8), 0, seconds=0.0))
    assert gate.looks == looks + 1


def test_the_scale_is_that_of_the_model() -> None:
    """An attention of 0.02 everywhere is rain to the usual scale, and dry weather to a model that marks everything."""
    for half, dry in ((USUAL_HALF, False), (0.2, True)):
        gate = RainGate(lambda pixels, attention: (pixels, rain_map(0.02)), half=half)
        result = gate(Frame(np.zeros((2, 2, 3), np.uint8), 0, seconds=0.0))
        assert result.gated is dry
        assert result.intensity == pytest.approx(0.02 / (0.02 + half))


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"wet": 0.1}, {"dry": 0.0}, {"period": -1.0}):
        with pytest.raises(UsageError):
            GateSettings(**wrong)
    with pytest.raises(UsageError, match="mode is 'sometimes'"):
        RainGate(Weather().derain, mode="sometimes")  # type: ignore[arg-type]


@pytest.mark.full
@pytest.mark.parametrize("name", ["nano", "edge"])
def test_real_rain_and_dry_pictures(name: str, shared_data: Path) -> None:
    """One look at one picture; a stream looks twice a second and averages."""
    model = shipped()[name]
    if "attention" not in model.companions:
        pytest.skip(f"the attention part of '{name}' does not ship")
    look = PartModel(model.companions["attention"].path, "attention")
    attention = look.port("attention").name
    half = read_card(model.path).rain_half

    def level(path: Path) -> float:
        return intensity(look(read_image(path))[attention][0], half)

    found = {kind: np.array([level(path) for path in list_images(shared_data / kind)]) for kind in ("real", "clean")}
    look.close()
    limit = GateSettings().wet
    assert (found["real"] < limit).mean() < 0.25, "missed rain"
    assert (found["clean"] >= limit).mean() < 0.15, "false alarms"


def test_derain_run_looks_with_the_part_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    class Recorded(PartModel):
        def __init__(self, path: Path, *arguments: Any) -> None:
            opened.append(path)
            super().__init__(path, *arguments)

    monkeypatch.setattr(launch, "PartModel", Recorded)
    dry = cv2.resize(read_image(SAMPLE), (320, 208), interpolation=cv2.INTER_AREA)
    clip = make_video(tmp_path / "in.mp4", REGULAR[:6], size=(320, 208), still=dry)
    arguments = [
        str(clip),
        "-o",
        str(tmp_path / "out.mp4"),
        "--gate",
        "auto",
        "--rain-log",
        str(tmp_path / "rain.jsonl"),
    ]
    result = CliRunner().invoke(app, ["run", "nano", *arguments, "--backend", "onnxruntime", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert opened == [shipped()["nano"].companions["attention"].path]
    lines = [json.loads(line) for line in (tmp_path / "rain.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    assert all(line["gated"] and line["rain"] < GateSettings().dry for line in lines), "the photograph is dry"
    assert len(frames_of(tmp_path / "out.mp4")) == 6


def test_a_gate_gives_the_map_when_asked() -> None:
    gate = RainGate(Weather().derain, Weather().look, "always", keep_map=True)
    result = gate(stream((True, 0.1))[0])
    assert isinstance(result, Derained)
    assert result.rain is not None
