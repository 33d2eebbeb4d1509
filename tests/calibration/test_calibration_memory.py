"""The promise of docs/calibration.md: less than 1 GiB, however many frames there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.card import read_card
from derain.models import shipped

PICTURES = 360
GIB = 1 << 20  # in KiB, which ru_maxrss counts

_RUN = """
import resource, sys
from derain.cli import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.full
def test_a_large_set_of_large_frames_stays_below_a_gibibyte(tmp_path: Path) -> None:
    """Full-HD pictures, 2 GiB of them when decoded: twelve scenes in ten lights, three times each."""
    random = np.random.default_rng(4)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(12):
        coarse = random.uniform(20, 200, (9, 16, 3)).astype(np.float32)
        frame = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC) + random.normal(0, 6, (1080, 1920, 1))
        for turn in range(PICTURES // 12):
            level = np.clip(frame + turn % 10 * 4, 0, 255).astype(np.uint8)
            if turn < 10:
                cv2.imwrite(str(folder / f"{number:02}-{turn:03}.jpg"), level)
            else:
                (folder / f"{number:02}-{turn:03}.jpg").hardlink_to(folder / f"{number:02}-{turn % 10:03}.jpg")
    output = tmp_path / "out.onnx"
    options = ["--frames", str(folder), "--count", "16", "--max-drop", "3", "-o", str(output)]
    command = [sys.executable, "-c", _RUN, "calibrate", next(iter(shipped())), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_card(output).calibration
    assert record is not None
    assert len(record.frames) == 16
    peak = int(done.stdout.split("peak")[-1])
    print(f"peak {peak / 1024:.0f} MiB with {PICTURES} pictures")
    assert peak < GIB
