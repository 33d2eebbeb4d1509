"""Which model and precision should keep up on a device: a roofline estimate, corrected by measured runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from derain.card import ModelCard, read_card
from derain.cost import GraphCost, measure
from derain.devices import ACHIEVED_RANGE, STORED_BYTES, Device, Estimate, estimate_on
from derain.errors import DataError, ModelFileError, UsageError
from derain.runtime.bench.report import runs_on_gpu
from derain.runtime.bench.schema import BenchResult

Verdict: TypeAlias = Literal["fits", "may fit", "too slow"]
Shape: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Model:
    """A model to plan for; ``file`` is read for its cost."""

    name: str
    file: Path
    card: ModelCard

    def cost(self, shape: Shape) -> GraphCost:
        """At (batch, height, width).

        Raises:
            UsageError: the model is of another, fixed size.
            ModelFileError, MissingDependencyError: as for :func:`derain.cost.measure`.
        """
        import onnx

        if self.card.profile.fixed and self.card.profile.opt != shape:
            _, height, width = self.card.profile.opt
            raise UsageError(f"'{self.file}' was exported for {width}x{height} only", fix="Give that as --size")
        try:
            model = onnx.load(str(self.file))
        except Exception as error:  # protobuf's own classes, which share only Exception
            raise ModelFileError(f"'{self.file}' cannot be read as ONNX ({error})", fix="Export it again") from error
        return measure(model, self.card, shape)


@dataclass(frozen=True)
class Correction:
    """A measured run against its own estimate.

    Attributes:
        factor: measured to estimated; above 1 the device is slower than estimated.
        source: the file, and what was measured.
    """

    model: str
    precision: str
    factor: float
    source: str


@dataclass(frozen=True)
class Option:
    """One model at one precision.

    Attributes:
        budget: milliseconds there are for a frame.
        factor: of the estimate, from measured runs; 1 without any.
        basis: where the factor comes from.
    """

    model: str
    estimate: Estimate
    kmac_per_pixel: float
    budget: float
    factor: float
    basis: str

    @property
    def expected(self) -> float:
        """Milliseconds for a frame."""
        return self.estimate.expected * self.factor

    @property
    def span(self) -> tuple[float, float]:
        """Milliseconds with the largest and the smallest share of peak that was found from network to network."""
        low, high = ACHIEVED_RANGE
        return self.estimate.floor / high * self.factor, self.estimate.floor / low * self.factor

    @property
    def margin(self) -> float:
        """The time there is to the time expected; above 1 there is time left."""
        return self.budget / self.expected

    @property
    def verdict(self) -> Verdict:
        """``may fit``: it depends on where between the two ends of :attr:`span` the network lies."""
        best, worst = self.span
        if worst <= self.budget:
            return "fits"
        return "may fit" if best <= self.budget else "too slow"


def open_model(name: str, file: Path) -> Model:
    """A model by its file.

    Raises:
        ModelFileError: missing, damaged, an engine, or without a card.
    """
    return Model(name, file, read_card(file))


def plan(
    models: Sequence[Model], device: Device, shape: Shape, fps: float, corrections: Sequence[Correction] = ()
) -> list[Option]:
    """Every model in float16 and INT8 on a device, the largest network first.

    Args:
        shape: (batch, height, width); the batch is 1.
        fps: frames a second that must be kept up with.

    Raises:
        UsageError: ``fps`` is not above 0.
    """
    if not 0 < fps <= 10_000:
        raise UsageError(f"--fps is {fps:g}", expected="frames a second, above 0")
    options = []
    for model in models:
        cost = model.cost(shape)
        for found in estimate_on(device, cost, STORED_BYTES[model.card.precision.kind]):
            factor, basis = _factor(model.name, found.precision, corrections)
            options.append(Option(model.name, found, cost.kmac_per_pixel, 1000 / fps, factor, basis))
    return sorted(options, key=lambda option: -option.kmac_per_pixel)


def best(options: Sequence[Option]) -> Option | None:
    """The largest network that fits, in the precision that needs no calibration where both do; None if none does."""
    fitting = [option for option in options if option.verdict == "fits"]
    return max(
        fitting, key=lambda option: (option.kmac_per_pixel, option.estimate.precision == "float16"), default=None
    )


def corrections_from(result: BenchResult, source: str, models: Sequence[Model], device: Device) -> list[Correction]:
    """What a benchmark on the device says about the estimates.

    Only runs on the GPU count, in float16 or INT8, of models that are planned for. The whole frame's median time is
    compared, copies included, as it is what has to fit.

    Args:
        source: name of the result's file, for people.

    Raises:
        DataError: measured on another device, or nothing in it can be used.
    """
    if result.machine is not None:
        names = [str(item.value) for item in (result.machine.board, result.machine.gpu) if item.value is not None]
        if not any(device.reports.lower() in name.lower() for name in names):
            raise DataError(
                f"'{source}' was measured on {' / '.join(names) or 'a machine without a GPU'}",
                expected=f"a result from {device.name}",
            )
    found = []
    for item in result.candidates:
        model = next((m for m in models if item.model == m.name or item.model.startswith(f"{m.name}.")), None)
        usable = item.backend == "trtexec" or runs_on_gpu(item.backend)
        if model is None or not usable or result.width is None or result.height is None:
            continue
        cost = model.cost((1, result.height, result.width))
        for estimated in estimate_on(device, cost, STORED_BYTES[model.card.precision.kind]):
            if estimated.precision == item.precision:
                told = f"{source}: {item.label}, {result.width}x{result.height}, {item.latency.p50:.2f} ms"
                factor = item.latency.p50 / estimated.expected
                found.append(Correction(model.name, estimated.precision, factor, told))
    if not found:
        raise DataError(
            f"'{source}' holds no run of {', '.join(m.name for m in models)} in float16 or int8 on a GPU of known size",
            fix="Measure with derain bench on the device; with trtexec's times name the model: "
            "derain bench MODEL --from-trtexec FILE --size WIDTHxHEIGHT --json FILE",
        )
    return found


def _factor(model: str, precision: str, corrections: Sequence[Correction]) -> tuple[float, str]:
    """The geometric mean of the nearest measured runs: of this model and precision, of the precision, of any."""
    same = [item for item in corrections if (item.model, item.precision) == (model, precision)]
    alike = [item for item in corrections if item.precision == precision]
    for nearest, basis in ((same, "measured"), (alike, "another model measured"), (corrections, "another precision")):
        if nearest:
            return statistics.geometric_mean(item.factor for item in nearest), basis
    return 1.0, "none"
