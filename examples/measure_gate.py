"""What the rain gate misses and what it saves.

Run: python measure_gate.py RAINY_FOLDER DRY_FOLDER [splits.json [MODEL]]

Each picture is looked at once; then each becomes a clip, a window that pans over it at 30 frames a second, which goes
through the gate as a stream does. `splits.json` lists, by the folders' names, the pictures that no model was trained
on; without it all are taken.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.card import read_card
from derain.companions import beside
from derain.images import list_images, read_image
from derain.models import resolve
from derain.rain_intensity import intensity
from derain.runtime.gate import GateSettings, RainGate
from derain.runtime.media.items import Frame
from derain.runtime.parts import PartModel

RAINY, DRY = Path(sys.argv[1]), Path(sys.argv[2])
HELD_OUT = json.loads(Path(sys.argv[3]).read_text()) if sys.argv[3:] else {}
MODEL = resolve(sys.argv[4] if sys.argv[4:] else "nano")
HALF = read_card(MODEL).rain_half
RATE, SECONDS = 30, 12.0
WINDOW = 0.7  # of each side


def pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """Those of a folder that the split holds out."""
    kept = HELD_OUT.get(folder.name)
    return [read_image(path) for path in list_images(folder) if kept is None or path.name in kept]


def pan(picture: NDArray[np.uint8], begin: float) -> Iterator[Frame]:
    """A hand-held view of a picture: a window that wanders over it."""
    height, width = (int(WINDOW * side) for side in picture.shape[:2])
    for number in range(int(SECONDS * RATE)):
        angle = 2 * np.pi * number / (SECONDS * RATE)
        top = int((picture.shape[0] - height) * (0.5 - 0.5 * np.cos(angle)))
        left = int((picture.shape[1] - width) * (0.5 - 0.5 * np.cos(2 * angle)))
        pixels = np.ascontiguousarray(picture[top : top + height, left : left + width])
        yield Frame(pixels, number, seconds=begin + number / RATE)


class Weather:
    """The attention part, as what looks at a dry stream and as what comes with a derained frame."""

    def __init__(self) -> None:
        self._part = PartModel(beside(MODEL, "attention"), "attention")
        self._channel = self._part.port("attention").name
        self.looks = 0

    def map(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The rain map of a picture."""
        return self._part(pixels)[self._channel][0]

    def look(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same, counted: it costs the attention part."""
        self.looks += 1
        return self.map(pixels)

    def derain(
        self, pixels: NDArray[np.uint8], attention: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Only what the gate decides is of interest: the picture stays as it is."""
        return pixels, self.map(pixels) if attention else None


def main() -> None:
    """Measure and print."""
    weather, wet = Weather(), GateSettings().wet
    whole, part = (read_card(path).cost.kmac_per_pixel for path in (MODEL, beside(MODEL, "attention")))
    sets = {"rain": pictures(RAINY), "dry": pictures(DRY)}
    rain, dry = (np.array([intensity(weather.map(picture), HALF) for picture in held]) for held in sets.values())
    print(f"one look: {(rain < wet).mean():.0%} of {len(rain)} rainy pictures missed,", end=" ")
    print(f"{(dry >= wet).mean():.0%} of {len(dry)} dry ones alarmed;", end=" ")
    print(f"area under the ROC curve {(rain[:, None] > dry).mean():.3f}")
    for kind, held in sets.items():
        weather.looks, shares, derained, frames = 0, [], 0, 0
        for picture in held:
            gate = RainGate(weather.derain, weather.look, half=HALF)
            shares.append(np.mean([not gate(frame).gated for frame in pan(picture, 0.0)]))
            derained, frames = derained + gate.derained, frames + gate.derained + gate.passed
        print(f"{kind}, {len(held)} clips of {SECONDS:.0f} s: derained {np.mean(shares):.0%} of the time;", end=" ")
        print(
            f"{sum(share == 1 for share in shares)} clips wholly, {sum(share == 0 for share in shares)} never;", end=" "
        )
        print(f"{(derained * whole + weather.looks * part) / (frames * whole):.0%} of the multiply-accumulates")
    gate, states = RainGate(weather.derain, weather.look, half=HALF), []
    for number, picture in enumerate(sets["dry"]):
        states += [not gate(frame).gated for frame in pan(picture, number * SECONDS)]
    changes = int(np.sum(np.diff(states)))
    print(
        f"dry clips in a row, {len(states) / RATE / 60:.0f} minutes: derained {np.mean(states):.0%} of the time,",
        end=" ",
    )
    print(f"{changes} changes between the two states")


main()
