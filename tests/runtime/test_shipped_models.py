"""What the models for cameras do to frames that no collection of photographs holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import derain
from derain.runtime.model import Model

HEIGHT, WIDTH = 180, 324


@pytest.fixture(params=["nano", "edge"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with derain.load(request.param, "onnxruntime", threads=1) as opened:
        yield opened


def plain_frames() -> dict[str, NDArray[np.uint8]]:
    """A covered lens, walls of several greys and colours, a sky that pales, and a wall as a noisy sensor sees it."""
    frames = {
        f"{colour}": np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
        for colour in (0, 16, 40, 90, 128, 180, 230, 255, (200, 150, 90), (60, 90, 160))
    }
    frames["sky"] = np.tile(np.linspace(120, 235, HEIGHT)[:, None, None], (1, WIDTH, 3)).astype(np.uint8)
    grain = 2 * np.random.default_rng(1).standard_normal((HEIGHT, WIDTH, 3))
    frames["grain"] = np.clip(np.rint(120 + grain), 0, 255).astype(np.uint8)
    return frames


def test_frames_with_nothing_in_them_stay_as_they_are(model: Model) -> None:
    """The first models took a grey wall for thick fog, and changed it by 40 to 58 levels.

    A grey sky that pales towards the horizon is what fog looks like, too, and is changed by up to 15: the price of
    clearing fog.
    """
    changes = {name: float(np.abs(model(frame).astype(int) - frame).mean()) for name, frame in plain_frames().items()}
    print({name: round(change, 2) for name, change in changes.items()})
    assert changes.pop("sky") < 20
    assert max(changes.values()) < 4, changes
