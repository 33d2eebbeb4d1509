"""Fixtures every folder of tests may use, and the report of what was left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ROOT.parent / "shared" / "data"
_NO_DATA = "no evaluation data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with Rain100L/, RainFog/, clean/, video/ ...; the test is skipped where there is none."""
    folder = Path(os.environ["DERAIN_DATA"]) if "DERAIN_DATA" in os.environ else BESIDE
    if not folder.is_dir():
        pytest.skip(f"{_NO_DATA}: neither $DERAIN_DATA nor ../shared/data beside the project is a folder")
    return folder


@pytest.fixture
def rainy_picture() -> NDArray[np.uint8]:
    """uint8 (96, 130, 3) BGR: smooth colours with slanted bright streaks; the same on every call."""
    height, width = 96, 130
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    scene = np.stack(
        [90 + 60 * np.sin(columns / 19), 110 + 50 * np.cos(rows / 13), 80 + 0.5 * rows + 0.3 * columns], axis=-1
    )
    along = columns + 0.35 * rows
    streaks = 70.0 * (np.sin(along * 0.9) > 0.97) * (np.sin(rows / 5 + along) > 0)
    noise = np.random.default_rng(7).normal(0, 2, scene.shape)
    return np.clip(scene + streaks[..., None] + noise, 0, 255).round().astype(np.uint8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`full` tests are named by -m full; a plain run leaves them out and says how many."""
    if config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """State what this run left out: the full tests, and under CI also every test that lacked data."""
    deselected = terminalreporter.stats.get("deselected", [])
    long = sum(item.get_closest_marker("full") is not None for item in deselected)
    skipped = terminalreporter.stats.get("skipped", [])
    no_data = [report.nodeid for report in skipped if _NO_DATA in str(report.longrepr)]
    if not long and not skipped:
        return
    terminalreporter.section("left out of this run")
    if long:
        terminalreporter.write_line(f"{long} long tests (marker 'full'): they run in `make test-full`")
    if no_data:
        terminalreporter.write_line(f"{len(no_data)} tests for lack of data ($DERAIN_DATA or ../shared/data)")
        if os.environ.get("CI") == "true":
            for nodeid in no_data:
                terminalreporter.write_line(f"  {nodeid}")
    others = len(skipped) - len(no_data)
    if others:
        terminalreporter.write_line(f"{others} tests for the reasons listed above")
