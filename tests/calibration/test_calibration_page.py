"""examples/measure_int8.py makes the measured part of docs/calibration.md, and measures nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_model import scene, write_pairs

from derain.images import write_image

ROOT = Path(__file__).resolve().parents[2]
MARKS = "<!-- made by examples/measure_int8.py -->", "<!-- end of what examples/measure_int8.py makes -->"


def _data(folder: Path) -> Path:
    for name, first in (("Rain100L/train", 0), ("Rain100L/test", 20), ("RainFog", 40)):
        write_pairs(folder / name, 4, first)
    for number in range(4):
        write_image(folder / "real" / f"{number}.png", scene(60 + number)[0])
        write_image(folder / "clean" / f"{number}.png", scene(80 + number)[1])
    held = {"Rain100L/train": ["00.png"], "RainFog": ["01.png"], "clean": ["2.png"], "real": ["3.png"]}
    (folder / "splits.json").write_text(json.dumps(held))
    return folder


def test_the_page(tiny_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    script, out = ROOT / "examples" / "measure_int8.py", tmp_path / "out"
    arguments = [str(_data(tmp_path / "data")), str(out), str(tiny_file), "--page", str(page)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith(f"before\n{MARKS[0]}\n| model | form | KiB | Rain100L/test | RainFog held out | dry |")
    assert text.endswith(f"\n{MARKS[1]}\nafter\n")
    assert "old" not in text
    found = json.loads((out / "tiny.json").read_text())
    assert {"float32", "float16", "INT8, no gate"} <= set(found["forms"])
    assert found["forms"]["INT8, no gate"]["int8"] == 5
    psnr, ssim = found["forms"]["float32"]["sets"]["dry"]
    assert f"| tiny | float32 | {found['forms']['float32']['kib']:.0f} |" in text
    assert f"{psnr:.2f} / {ssim:.4f} |" in text
    assert found["speed"]["all"] == 5

    found["forms"]["float32"]["sets"]["dry"][0] = 12.34  # what is there is not measured again
    (out / "tiny.json").write_text(json.dumps(found))
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"12.34 / {ssim:.4f} |" in page.read_text()
    assert "measuring" not in done.stderr
