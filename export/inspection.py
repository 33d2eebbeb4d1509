"""What ``derain inspect`` finds out about a file, and how it prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from derain.card import ModelCard, Profile, read_card
from derain.cost import GraphCost, measure, part_flow
from derain.devices import ESTIMATE_COLUMNS, ESTIMATE_NOTE, STORED_BYTES, Estimate, estimate, estimate_row
from derain.errors import ModelFileError
from derain.sizes import Shape, size_text

_ENGINES = (".engine", ".plan", ".trt")


@dataclass(frozen=True)
class Inspection:
    """A file's card and, where onnx is installed, what its graph costs.

    Attributes:
        missing: why there is no cost; None when there is.
        flow: which part's outputs go into which part, in the order they first do.
    """

    path: Path
    file_bytes: int
    card: ModelCard
    cost: GraphCost | None
    estimates: list[Estimate]
    missing: str | None
    flow: list[tuple[str, str]] = field(default_factory=list)


def inspect(path: Path, size: Shape | None = None) -> Inspection:
    """Read a model file.

    Args:
        path: written by derain.
        size: (batch, height, width) to count at; None takes the profile's optimum.

    Raises:
        ModelFileError: missing, damaged, or without a card.
    """
    if path.suffix.lower() in _ENGINES:
        raise ModelFileError(
            f"'{path}' is an engine",
            expected="the .onnx file it was built from",
            fix=f"Its card, sizes and self-test are in '{path.name}.json'",
        )
    card = read_card(path)
    file_bytes = path.stat().st_size
    try:
        import onnx
        import onnxslim  # noqa: F401  (counting needs it; the card alone does not)
    except ImportError as error:
        missing = f'For operators, cost and estimates install {error.name}: pip install "derain[export]"'
        return Inspection(path, file_bytes, card, None, [], missing)
    try:
        model = onnx.load(str(path))
    except Exception as error:
        raise ModelFileError(f"'{path}' cannot be read as ONNX ({error})", fix="Export it again") from error
    cost = measure(model, card, size or card.profile.opt)
    estimates = estimate(cost, STORED_BYTES[card.precision.kind])
    return Inspection(path, file_bytes, card, cost, estimates, None, part_flow(model))


def as_json(found: Inspection) -> dict[str, Any]:
    """Everything as plain values."""
    document: dict[str, Any] = {
        "file": str(found.path),
        "bytes": found.file_bytes,
        "card": found.card.model_dump(mode="json"),
    }
    if found.cost is not None:
        cost = found.cost
        document["cost"] = {
            "size": size_text(cost.shape),
            "operators": dict(cost.operators),
            "parameters": cost.parameters,
            "weight_bytes": cost.weight_bytes,
            "activation_bytes": cost.activation_bytes,
            "kmac_per_pixel": cost.kmac_per_pixel,
            "parts": {part: {"kmac_per_pixel": k, "weights": w} for part, (k, w) in cost.by_part(2).items()},
            "layers": [asdict(layer) for layer in cost.layers],
        }
        document["estimates"] = {"note": ESTIMATE_NOTE, "devices": [asdict(item) for item in found.estimates]}
    return document


def card_rows(card: ModelCard, path: Path, file_bytes: int) -> list[tuple[str, str]]:
    """The card as pairs of a term and what it is."""
    geometry, cost = card.geometry, card.cost
    rows = [
        ("file", f"{path} ({file_bytes / 1024:.0f} KiB)"),
        ("model", f"{card.name}: {card.system}, {card.variant}, part {card.part}"),
        ("precision", card.precision.kind + (f", {card.precision.calibration}" if card.precision.calibration else "")),
    ]
    for title, ports in (("input", card.inputs), ("output", card.outputs)):
        for port in ports:
            low, high = port.value_range
            values = "" if port.layout == "NC" else f" {low:g}..{high:g}"
            rows.append((title, f"{port.name}: {port.dtype} {port.layout} {port.channels}{values}"))
    if card.yuv:
        rows.append(("colour", card.yuv))
    if card.companion:
        rows.append(("companion", card.companion))
    receptive = "the whole frame" if geometry.receptive_field is None else f"{geometry.receptive_field} px"
    rows += [
        ("sizes", profile_text(card.profile)),
        ("grid", f"multiples of {geometry.multiple_of}, padded inside the graph; a pixel sees {receptive}"),
        ("tiling", f"{geometry.tiling}: {geometry.tiling_reason}"),
        ("attention", card.attention),
        ("cost", f"{cost.kmac_per_pixel:.3f} kMAC/pixel, {cost.parameters:,} parameters"),
    ]
    for quality in card.quality:
        before = "" if quality.input_psnr is None else f" (input {quality.input_psnr:.2f} dB)"
        rows.append(
            (
                "quality",
                f"{quality.dataset}, {quality.protocol}, {quality.images} pictures: {quality.psnr:.2f} dB, "
                f"SSIM {quality.ssim:.4f}{before}",
            )
        )
    if card.parity:
        parity = card.parity
        close = "" if parity.psnr is None else f", {parity.psnr:.1f} dB"
        rows.append(
            (
                "against PyTorch",
                f"at most {parity.max_level_difference:g} levels on {100 * parity.differing_fraction:.4f} % of "
                f"values{close}; attention {parity.attention_max_difference:.2g}; at {', '.join(parity.sizes)}",
            )
        )
        rows += [("verified with", line) for line in parity.verified_with]
    if card.training:
        training = card.training
        minutes = "" if training.minutes is None else f", {training.minutes:.0f} min"
        rows.append(("training", f"{training.recipe}, {training.steps} steps, seed {training.seed}{minutes}"))
        rows.append(("data", ", ".join(training.data) or "not stated"))
    rows += [("opset", str(card.opset)), ("licence", card.licence), ("made by", f"derain {card.derain_version}")]
    return rows


def profile_text(profile: Profile) -> str:
    """A profile in words."""
    if profile.fixed:
        return f"fixed {size_text(profile.opt)}"
    low, middle, high = (size_text(shape) for shape in (profile.min, profile.opt, profile.max))
    return f"dynamic; for engines: min {low}, opt {middle}, max {high}"


def print_report(found: Inspection, console: Console) -> None:
    """Print an inspection as tables."""
    console.print(Group(*_tables(found)))


def _tables(found: Inspection) -> list[RenderableType]:
    card = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for term, value in card_rows(found.card, found.path, found.file_bytes):
        card.add_row(Text(term, style="bold"), Text(value))
    if found.cost is None:
        return [card, Text(f"\n{found.missing}")]
    cost = found.cost
    parts = Table(title=f"Parts, at {size_text(cost.shape)}", title_justify="left")
    for column in ("part", "kMAC/pixel", "share", "weights"):
        parts.add_column(column, justify="left" if column == "part" else "right")
    for part, (kmac, weights) in cost.by_part(2).items():
        parts.add_row(part, f"{kmac:.3f}", f"{kmac / max(cost.kmac_per_pixel, 1e-12):.1%}", f"{weights:,}")
    parts.add_section()
    parts.add_row("all", f"{cost.kmac_per_pixel:.3f}", "", f"{cost.parameters:,} stored")
    memory = Text(
        f"Memory at {size_text(cost.shape)}: activations at most {cost.activation_bytes / 2**20:.1f} MiB at once "
        f"(node by node, unfused), weights {cost.weight_bytes / 2**20:.2f} MiB"
    )
    operators = Text("Operators: " + ", ".join(f"{name} {count}" for name, count in cost.operators.most_common()))
    table = Table(title=f"Estimates at {size_text(cost.shape)}", title_justify="left", caption=ESTIMATE_NOTE)
    for column in ESTIMATE_COLUMNS:
        table.add_column(column, justify="left" if column in ESTIMATE_COLUMNS[:2] else "right")
    for item in found.estimates:
        table.add_row(*estimate_row(item))
    return [card, Text(), parts, memory, operators, Text(), table]
