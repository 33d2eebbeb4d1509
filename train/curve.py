"""The learning curve of a run, drawn from its log."""

from __future__ import annotations

import json
from pathlib import Path

from derain.errors import DataError
from derain.files import atomic_path


def draw_curve(log: Path, picture: Path) -> None:
    """Draw PSNR of the validation pictures and the mean losses against the step, from a run's ``log.jsonl``.

    Raises:
        DataError: the log holds no validation.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    if not entries:
        raise DataError(f"'{log}' holds no validation yet", fix="Train at least [validate_every] steps")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    quality, losses = figure.subplots(1, 2)
    measured = [entry for entry in entries if entry["psnr"] is not None]
    if measured:
        quality.plot([e["step"] for e in measured], [e["psnr"] for e in measured], marker="o", label="derained")
        quality.axhline(measured[-1]["input_psnr"], linestyle="--", color="grey", label="rainy input (last round)")
        quality.legend()
    quality.set(title="validation", xlabel="step", ylabel="PSNR in dB, y_matlab")
    for name in sorted({name for entry in entries for name in entry["losses"]} - {"generator"}):
        points = [(entry["step"], entry["losses"][name]) for entry in entries if name in entry["losses"]]
        losses.plot([step for step, _ in points], [value for _, value in points], label=name)
    losses.set(title="mean losses, weighted", xlabel="step", yscale="log")
    losses.legend(fontsize=6, ncols=2)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)
