"""The learning curve of a model that was trained in several runs, from their logs: python docs/models/curve.py edge."""

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from derain.files import atomic_path

FOLDER = Path(__file__).parent
# A run between two of them that lies in another model's folder: (before which log, whose log, what it is called).
BETWEEN = {"edge": ("5-every-rain", FOLDER / "edge-rain100l" / "log.jsonl", "4 Rain100L pairs alone (edge-rain100l)")}


def main(name: str) -> None:
    """Draw the gain over the rainy input at each validation, over all runs; the last of a run is of all pairs."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    begin = 0
    logs = [(path, path.stem.replace("-", " ")) for path in sorted((FOLDER / name).glob("*.jsonl"))]
    if name in BETWEEN:
        before, path, label = BETWEEN[name]
        logs.insert([path.stem for path, _ in logs].index(before), (path, label))
    for path, label in logs:
        rounds = [json.loads(line) for line in path.read_text().splitlines()]
        gains = [entry["psnr"] - entry["input_psnr"] for entry in rounds]
        axes.plot([begin + entry["step"] for entry in rounds], gains, marker="o", markersize=4, label=label)
        begin += rounds[-1]["step"]
    axes.set(title=f"{name}: validation", xlabel="step, over all runs")
    axes.set_ylabel("gain over the rainy input in dB, y_matlab")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(FOLDER / name / "curve.png") as temporary:
        figure.savefig(temporary, dpi=110)


main(sys.argv[1])
