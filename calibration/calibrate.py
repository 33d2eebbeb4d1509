"""From a float32 model and frames to a model of lower precision that passed the quality gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from derain.calibration import gate
from derain.calibration.describe_model import Outcome, lower_card, set_card
from derain.calibration.descriptors import Description, digest
from derain.calibration.frames import Kind, Options, described, feeds, held_out, spread
from derain.calibration.half import to_half
from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Method, Ranges, collect, trained_ranges
from derain.calibration.report import comparison, need_plots, plot_sensitivity, write_json
from derain.calibration.search import Found, fewest_kept, sensitivities
from derain.calibration.selection import Selection, select
from derain.calibration.session import Runner
from derain.card import ModelCard, read_card
from derain.errors import CalibrationError, ModelFileError, UsageError
from derain.files import atomic_path
from derain.images import write_image
from derain.runtime.ports import Picture, require_whole

if TYPE_CHECKING:
    import onnx

Build = Callable[[frozenset[str]], "onnx.ModelProto"]
_SEARCH_CHECKS = 8


@dataclass(frozen=True)
class Calibrated:
    """A finished model, not yet written, and how it came about."""

    model: onnx.ModelProto
    card: ModelCard
    selection: Selection
    found: Found
    change: gate.Change
    ranges: Ranges | None
    worst: Picture


def calibrate(path: Path, options: Options, *, say: Callable[[str], None] = lambda _: None) -> Calibrated:
    """Choose frames, find ranges, quantize, and move layers back until the gate opens. Nothing is written.

    Raises:
        CalibrationError: no frames, or the gate stays closed.
        FrameError: a frame of a size the model does not take.
        ModelFileError: the model is not a whole float32 one.
        UsageError: a model that was trained for INT8 is to be judged by itself.
    """
    need_plots()
    model, card = _load(path)
    layers = find_layers(model, str(path))
    plain = Runner(*(_load(options.against) if options.against is not None else (model, card)))
    trained = card.trained if options.kind == "int8" else None
    if trained is not None and options.against is None:
        raise UsageError(
            f"'{path}' was trained for INT8: its own float32 pictures are not what it is to be judged by",
            expected="the float32 model that it was fine-tuned from",
            fix="Give it with --against",
        )
    say("reading held-out frames")
    checks = held_out(options, plain)
    say("choosing frames")
    selection = Selection([], [], 0, 0, 0) if trained is not None else _select(options, plain, checks)
    reference = gate.reference_error(plain.card)
    quick = spread(checks, _SEARCH_CHECKS)

    def alone(build: Build) -> Callable[[frozenset[str]], float]:
        return lambda kept: gate.mean_drop(Runner(build(kept), card), quick, reference)

    def whole(build: Build, kept: frozenset[str]) -> tuple[float, float]:
        return gate.burden(Runner(build(kept), card), checks, reference, options.max_drop)

    ranges: Ranges | None = None
    compared: dict[str, float] = {}
    tensors = tensors_of(model, layers)
    fixed = frozenset[str]()
    if trained is not None:
        ranges = trained_ranges(model, trained)
        fixed = frozenset(layers.convolutions) - frozenset(trained.inputs)
    elif options.kind != "float16":
        tried: dict[Method, Ranges] = {}
        burdens: dict[Method, float] = {}
        for method in options.methods:
            say(f"ranges by {method}")
            tried[method] = collect(model, tensors, lambda: feeds(options, selection.names, card), method)
            build = _builder(model, layers, tried[method], fixed, options.kind)
            compared[method], burdens[method] = whole(build, frozenset())
        ranges = tried[min(burdens, key=lambda method: burdens[method])]
    build = _builder(model, layers, ranges, fixed, options.kind)
    free = [name for name in layers.convolutions if name not in fixed]
    sensitivity = sensitivities(free, alone(build), say=say)
    found = fewest_kept(free, sensitivity, lambda kept: whole(build, kept)[1], options.max_drop, say=say)
    finished = build(found.kept)
    say("the quality gate")
    run = Runner(finished, card)
    change = gate.measure(run, checks, reference)
    gate.judge(change, options.max_drop, options.kind)
    worst = next(check for check in checks if check.name == change.worst.name)
    picture = comparison(worst.derained, run(worst.rainy))
    outcome = Outcome(selection, found.kept | fixed, change, ranges, compared)
    new = lower_card(card, options, layers, outcome)
    set_card(finished, new)
    return Calibrated(finished, new, selection, found, change, ranges, picture)


def write(done: Calibrated, output: Path, report: Path) -> None:
    """Write the model, and into the folder ``report`` the figures, the worst frame and the sensitivity plot."""
    write_image(report / "worst.png", done.worst)
    plot_sensitivity(report / "sensitivity.png", done.found.sensitivity, done.found.kept, done.card.precision.kind)
    assert done.card.calibration is not None
    document = {
        "calibration": done.card.calibration.model_dump(mode="json"),
        "chosen": dict(zip(done.selection.names, done.selection.digests, strict=True)),
        "sensitivity": done.found.sensitivity,
        "search": done.found.steps,
        "ranges": {} if done.ranges is None else done.ranges.largest,
        "frames": [asdict(score) for score in done.change.scores],
    }
    write_json(report / "report.json", document)
    with atomic_path(output) as temporary:
        temporary.write_bytes(done.model.SerializeToString())


def _load(path: Path) -> tuple[onnx.ModelProto, ModelCard]:
    import onnx

    card = read_card(path)
    require_whole(card, path)
    if card.precision.kind != "float32":
        raise ModelFileError(
            f"'{path}' is of precision {card.precision.kind} already",
            expected="a float32 model",
            fix="Calibrate the model it was made from",
        )
    try:
        return onnx.load(str(path)), card
    except Exception as error:
        raise ModelFileError(f"'{path}' cannot be read as ONNX ({error})", fix="Export it again") from error


def _select(options: Options, plain: Runner, checks: list[gate.Check]) -> Selection:
    """Frames to calibrate with; what is judged by is not among them, however it is called."""
    held = {digest(check.rainy) for check in checks}
    overlap: list[str] = []

    def free() -> Iterator[tuple[str, Description]]:
        for name, description in described(options, plain):
            if description.digest in held:
                overlap.append(name)
            else:
                yield name, description

    try:
        selection = select(free(), options.count)
    except CalibrationError as error:
        if not overlap:
            raise
        raise CalibrationError(
            f"All {len(overlap)} frames of --frames are judged by too, such as '{overlap[0]}'",
            expected="frames to calibrate with that are not judged by",
            fix="Give other frames with --check, or leave it out",
        ) from error
    if overlap:
        what = "frame that is judged by was" if len(overlap) == 1 else "frames that are judged by were"
        selection.warnings.append(f"{len(overlap)} {what} not calibrated with, such as '{overlap[0]}'.")
    return selection


def _builder(model: onnx.ModelProto, layers: Layers, ranges: Ranges | None, fixed: frozenset[str], kind: Kind) -> Build:
    """The model of lower precision as a function of the layers kept above it, besides the ``fixed`` ones."""
    if ranges is None:
        return lambda kept: to_half(model, frozenset([*layers.convolutions, *layers.products]) - kept)
    return lambda kept: quantize(model, layers, ranges, kept | fixed, float8=kind == "float8")
