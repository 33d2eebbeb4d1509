"""The table of docs/calibration.md. Run: python measure_int8.py DATA OUT edge nano [extra.onnx ...]

DATA holds Rain100L/train, Rain100L/test, RainFog, real, clean and splits.json, as docs/training.md describes them. Of
each model named, a shipped one or a float32 .onnx, the forms below are made in OUT and measured; a finished file that
ends in .int8.onnx, such as one after quantization-aware training, is only measured. What is there already is not made
again, so an interrupted run goes on. Rain100L/test is measured and used for nothing else.
"""

import json
import subprocess
import sys
from pathlib import Path

from derain.card import read_card
from derain.models import resolve

DATA, OUT = Path(sys.argv[1]), Path(sys.argv[2])
FRAMES = [part for name in ("Rain100L/train", "RainFog", "real", "clean") for part in ("--frames", str(DATA / name))]
SPLIT = ["--split", str(DATA / "splits.json")]
SETS = {
    "Rain100L/test": ["--data", str(DATA / "Rain100L/test")],
    "RainFog": ["--data", str(DATA / "RainFog"), *SPLIT],
    "dry": ["--dry", str(DATA / "clean"), *SPLIT],
}
FORMS = {
    "fp16": ["--precision", "fp16", "--max-drop", "0.05"],
    "fp8": ["--precision", "fp8"],
    "int8": [],
    "gated.int8": ["--max-drop", "0.02"],
}


def derain(*arguments: str) -> None:
    """Run the command; stop where it fails."""
    subprocess.run([sys.executable, "-m", "derain", *arguments], check=True)


def forms(model: str) -> list[Path]:
    """The float32 file and what is calibrated from it; of a finished file, that alone."""
    path = resolve(model)
    if read_card(path).precision.kind != "float32":
        return [path]
    found = [path]
    for form, options in FORMS.items():
        output = OUT / f"{path.stem}.{form}.onnx"
        if not output.exists():
            derain("calibrate", str(path), *FRAMES, *SPLIT, "--count", "32", *options, "-o", str(output))
        found.append(output)
    return found


def row(path: Path) -> str:
    """A line of the table: size, layers by type, PSNR and SSIM of each set."""
    card = read_card(path)
    layers = "float32"
    if card.calibration is not None:
        counts = {kind: len(getattr(card.calibration, kind)) for kind in ("int8", "float8", "float16")}
        layers = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    cells = []
    for name, options in SETS.items():
        report = OUT / f"{path.name}.{name.replace('/', '-')}.json"
        if not report.exists():
            derain("eval", str(path), *options, "--json", str(report))
        results = json.loads(report.read_text())["results"]
        cells += [f"{r['psnr']:.2f} / {r['ssim']:.4f}" for r in results if r["protocol"] == "y_matlab"]
    return f"| {path.name} | {layers} | {path.stat().st_size / 1024:.0f} | {' | '.join(cells)} |"


OUT.mkdir(parents=True, exist_ok=True)
rows = [row(path) for model in sys.argv[3:] for path in forms(model)]
print(f"| file | layers | KiB | {' | '.join(SETS)} |\n|{'---|' * (3 + len(SETS))}", *rows, sep="\n")
