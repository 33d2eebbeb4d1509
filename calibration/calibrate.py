"""From a float32 model and frames to a model of lower precision that passed the quality gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from derain.calibration import gate
from derain.calibration.describe_model import Outcome, lower_card, set_card
from derain.calibration.descriptors import Description, digest
from derain.calibration.equalize import Equalizing, find_equalizing, trained_equalizing
from derain.calibration.frames import Options, described, feeds, held_out, samples, spread
from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.lower import Lower
from derain.calibration.mixed import mixed_ranges
from derain.calibration.ranges import Method, Ranges, channel_magnitudes, collect, trained_ranges
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

Say = Callable[[str], None]
_SEARCH_CHECKS = 8


@dataclass(frozen=True)
class Calibrated:
    """A finished model, not yet written, and how it came about; ``ranges`` are of the float32 file's tensors."""

    model: onnx.ModelProto
    card: ModelCard
    selection: Selection
    found: Found
    change: gate.Change
    ranges: Ranges | None
    worst: Picture


@dataclass(frozen=True)
class Prepared:
    """All that is found before layers are moved: what to judge by, ranges, and what each layer costs alone.

    Attributes:
        card: of the float32 model.
        options: as asked for.
        selection: frames that were calibrated with.
        checks: held-out frames.
        reference: mean square error of the float32 model's pictures, in squared levels.
        lower: the model of lower precision.
        compared: method of ranges to the drop that it causes with no layer kept, dB.
        sensitivity: layer to the drop that it causes alone, dB.
    """

    card: ModelCard
    options: Options
    selection: Selection
    checks: list[gate.Check]
    reference: float
    lower: Lower
    compared: dict[str, float]
    sensitivity: dict[str, float]

    def burden(self, lower: Lower, kept: frozenset[str], max_drop: float) -> tuple[float, float]:
        """See :func:`derain.calibration.gate.burden`."""
        return gate.burden(Runner(lower.build(kept), self.card), self.checks, self.reference, max_drop)


def calibrate(path: Path, options: Options, *, say: Say = lambda _: None) -> Calibrated:
    """Choose frames, find ranges, quantize, and move layers back until the gate opens. Nothing is written.

    Raises:
        CalibrationError: no frames, or the gate stays closed.
        FrameError: a frame of a size the model does not take.
        ModelFileError: the model is not a whole float32 one.
        UsageError: a model that was trained for INT8 is to be judged by itself.
    """
    return finish(prepare(path, options, say=say), options.max_drop, say=say)


def prepare(path: Path, options: Options, *, say: Say = lambda _: None) -> Prepared:
    """The part of :func:`calibrate` that does not depend on how large a loss is allowed.

    Of the methods of ranges the one is taken that loses least, beyond other limits of the gate if none respects them.
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
    reference = gate.reference_error(plain.card)
    selection, compared = Selection([], [], 0, 0, 0), dict[str, float]()
    if trained is not None:
        equalizing = trained_equalizing(model, trained)
        model = equalizing.apply(model)
        kept = frozenset(layers.all) - frozenset(trained.inputs)
        lower = Lower(model, layers, options.kind, equalizing, trained_ranges(model, trained), kept)
    elif options.kind == "float16":
        lower = Lower(model, layers, options.kind)
    else:
        say("choosing frames")
        selection = _select(options, plain, checks)
        lower, compared = _with_ranges(model, layers, card, plain, options, selection, checks, say)
    quick = spread(checks, _SEARCH_CHECKS)

    def alone(kept: frozenset[str]) -> float:
        return gate.mean_drop(Runner(lower.build(kept, alone=True), card), quick, reference)

    sensitivity = sensitivities(lower.free, alone, say=say)
    return Prepared(card, options, selection, checks, reference, lower, compared, sensitivity)


def _with_ranges(
    model: onnx.ModelProto,
    layers: Layers,
    card: ModelCard,
    plain: Runner,
    options: Options,
    selection: Selection,
    checks: list[gate.Check],
    say: Say,
) -> tuple[Lower, dict[str, float]]:
    """The model with the ranges that burden it least; and the drop with those of each method, dB."""
    again = partial(feeds, options, selection.names, card)
    reference, equalizing, tensors = gate.reference_error(plain.card), Equalizing(), tensors_of(model, layers)
    if options.kind == "int8":  # the steps of FP8 grow with the value: small channels lose nothing
        say("sizes of channels")
        equalizing = find_equalizing(model, tensors, partial(channel_magnitudes, frames=again))
        model = equalizing.apply(model)
    compared, burdens = dict[str, float](), dict[str, float]()

    def measured(ranges: Ranges) -> Lower:
        say(f"loss with ranges by {ranges.method}")
        made = Lower(model, layers, options.kind, equalizing, ranges)
        run = Runner(made.build(frozenset()), card)
        compared[ranges.method], burdens[ranges.method] = gate.burden(run, checks, reference, options.max_drop)
        return made

    tried: dict[Method, Ranges] = {}
    found: dict[str, Lower] = {}
    for method in options.methods:
        say(f"ranges by {method}")
        tried[method] = collect(model, tensors, again, method)
        found[method] = measured(tried[method])
    if options.kind == "int8":
        few = samples(options, selection.names, plain)
        begin = min(tried, key=lambda method: burdens[method])
        drop = partial(gate.mean_loss, checks=few, reference=reference)
        found["mixed"] = measured(mixed_ranges(model, layers, tried, begin, drop, card, say=say))
    return found[min(burdens, key=lambda method: burdens[method])], compared


def finish(prepared: Prepared, max_drop: float, *, say: Say = lambda _: None) -> Calibrated:
    """Move layers back until the gate opens, and judge the result.

    Raises:
        CalibrationError: the gate stays closed.
    """
    lower, options, card = prepared.lower, replace(prepared.options, max_drop=max_drop), prepared.card

    def burden(kept: frozenset[str]) -> float:
        return prepared.burden(lower, kept, max_drop)[1]

    found = fewest_kept(lower.free, prepared.sensitivity, burden, max_drop, say=say)
    finished = lower.build(found.kept)
    say("the quality gate")
    run = Runner(finished, card)
    change = gate.measure(run, prepared.checks, prepared.reference)
    gate.judge(change, max_drop, options.kind)
    worst = next(check for check in prepared.checks if check.name == change.worst.name)
    picture = comparison(worst.derained, run(worst.rainy))
    equalized = lower.equalizing.record(lower.model, lower.layers)
    kept = found.kept | lower.fixed
    outcome = Outcome(prepared.selection, kept, change, lower.ranges, prepared.compared, equalized)
    new = lower_card(card, options, lower.layers, outcome)
    set_card(finished, new)
    return Calibrated(finished, new, prepared.selection, found, change, lower.original_ranges, picture)


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
