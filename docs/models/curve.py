"""The learning curve of a model that was trained in several runs, from their logs: python docs/models/curve.py edge."""

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from derain.files import atomic_path

FOLDER = Path(__file__).parent
# Runs between two of them that lie in another model's folder: before which log, whose folder, how many of its runs.
BETWEEN = {"edge": ("6-every-rain", "edge-rain100l", 2), "nano": ("5-every-rain", "nano-rain100l", 2)}


def main(name: str) -> None:
    """Draw the gain over the rainy input at each validation, over all runs.

    Squares, the last of each run, are of all validation pairs, the others of a few of them.
    """
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    begin = 0
    logs = [(path, path.stem.replace("-", " ")) for path in sorted((FOLDER / name).glob("*.jsonl"))]
    if name in BETWEEN:
        before, other, count = BETWEEN[name]
        at = [path.stem for path, _ in logs].index(before)
        lent = sorted((FOLDER / other).glob("*.jsonl"))[:count]
        logs[at:at] = [(path, f"{other}: {path.stem.replace('-', ' ')}") for path in lent]
    for path, label in logs:
        rounds = [json.loads(line) for line in path.read_text().splitlines()]
        gains = [entry["psnr"] - entry["input_psnr"] for entry in rounds]
        steps = [begin + entry["step"] for entry in rounds]
        (line,) = axes.plot(steps[:-1], gains[:-1], marker="o", markersize=4, label=label)
        axes.plot(steps[-1], gains[-1], marker="s", markersize=7, fillstyle="none", color=line.get_color())
        begin += rounds[-1]["step"]
    axes.set(title=f"{name}: validation (squares: all pairs, else a few)", xlabel="step, over all runs")
    axes.set_ylabel("gain over the rainy input in dB, y_matlab")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(FOLDER / name / "curve.png") as temporary:
        figure.savefig(temporary, dpi=110)


main(sys.argv[1])
