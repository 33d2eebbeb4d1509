"""From an ONNX file to an engine, through TensorRT's own parser and builder.

The network is strongly typed: the precision is the one written in the file, on every version from 10.3 to 11. The same
lines serve TensorRT on a device and TensorRT-RTX ahead of time.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from derain.card import ModelCard
from derain.errors import BackendError, UsageError
from derain.runtime.engine.options import BuildOptions, input_shape, require_dla_fits
from derain.runtime.engine.progress import Report, make_monitor
from derain.runtime.engine.toolkit import Toolkit

_MIB = 1 << 20
_KEPT_MESSAGES = 500
# Without a driver the parser's own clean-up logs this after a refusal; the refusal is the message before it.
_NO_DRIVER = re.compile(r"CUDA.*\b35\b|error code 35|Cuda failure: 35", re.IGNORECASE)
_LIKE_MEMORY = re.compile(r"out of memory|insufficient.*workspace|OutOfMemory", re.IGNORECASE)


@dataclass(frozen=True)
class Built:
    """An engine as bytes.

    Attributes:
        timing_cache: the builder's kernel timings, to be kept for later builds; None where the toolkit has none.
        warnings: what the builder warned of.
    """

    plan: bytes
    seconds: float
    timing_cache: bytes | None
    warnings: list[str]


def build_plan(
    onnx: bytes,
    card: ModelCard,
    options: BuildOptions,
    toolkit: Toolkit,
    *,
    timing_cache: bytes = b"",
    report: Report | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Built:
    """Build an engine.

    Args:
        onnx: content of the model file.
        timing_cache: what an earlier build on this machine gave; one of another machine or version is ignored.
        report: called as the builder goes on.
        cancelled: asked often; True ends the build.

    Raises:
        UsageError: options that this TensorRT, or this machine, does not have.
        BackendError: the parser or the builder refuses the model; the message is NVIDIA's.
        KeyboardInterrupt: cancelled.
    """
    require_dla_fits(card, options)
    trt = toolkit.module
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise _refusal(parser, logger, toolkit)
    config = builder.create_builder_config()
    _apply(config, builder, options, toolkit)
    if not card.profile.fixed:
        config.add_optimization_profile(_profile(builder, network, card, options))
    cache = _timing_cache(config, timing_cache, toolkit)
    monitor = make_monitor(trt, report, cancelled)
    config.progress_monitor = monitor
    started = time.perf_counter()
    memory = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if monitor.was_cancelled:
        raise KeyboardInterrupt
    if memory is None:
        reason = logger.first_error()
        fix = "Free memory, or set a limit with --workspace" if _LIKE_MEMORY.search(reason) else None
        raise BackendError(
            f"{toolkit} cannot build the engine: {reason}", fix=fix or "Find the layer with derain debug reduce"
        )
    kept = bytes(memoryview(cache.serialize())) if cache is not None else None
    return Built(bytes(memoryview(memory)), seconds, kept, logger.of_severity(2))


def make_logger(trt: Any) -> Any:
    """A TensorRT logger that keeps what is worth telling and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            # Bounded: at run time a warning may come with every frame, for months.
            self.messages: deque[tuple[int, str]] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= 2:  # internal error, error, warning
                self.messages.append((int(severity), message.strip()))

        def of_severity(self, severity: int) -> list[str]:
            return [message for level, message in self.messages if level == severity]

        def first_error(self) -> str:
            return next(self._errors(), "it gave no reason")

        def last_error(self) -> str:
            return ([*self._errors()] or ["it gave no reason"])[-1]

        def _errors(self) -> Iterator[str]:
            return (text for level, text in self.messages if level <= 1 and not _NO_DRIVER.search(text))

    return Logger()


def known_capabilities(toolkit: Toolkit) -> list[str]:
    """Compute capabilities that an ahead-of-time builder knows, such as ``SM86``; empty for the full TensorRT."""
    names = getattr(toolkit.module, "ComputeCapability", None)
    return sorted((name for name in dir(names) if name.startswith("SM")), key=lambda name: int(name[2:]))


def _apply(config: Any, builder: Any, options: BuildOptions, toolkit: Toolkit) -> None:
    trt = toolkit.module
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if toolkit.ahead_of_time:
        _apply_ahead_of_time(config, options, toolkit)
    elif options.capabilities:
        raise UsageError(
            f"{toolkit} builds for the GPU of this machine only, not for {', '.join(options.capabilities)}",
            fix="Build with --builder tensorrt-rtx, or write a script for the other machine with --script",
        )
    if options.dla_core is not None:
        cores = int(builder.num_DLA_cores)
        if options.dla_core >= cores:
            raise UsageError(
                f"--dla is {options.dla_core}, and {toolkit} finds {cores} deep learning accelerators here",
                expected="a core of an Orin, 0 or 1, with TensorRT 10.3 to 10.7, or 11.4.1 on AGX Orin",
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _apply_ahead_of_time(config: Any, options: BuildOptions, toolkit: Toolkit) -> None:
    unusable = {
        "--hardware-compatible": options.hardware_compatible,
        "--version-compatible": options.version_compatible,
    }
    for option, given in unusable.items():
        if given:
            raise UsageError(
                f"{option} was given with {toolkit}", expected="compute capabilities, with --for SM86 --for SM120"
            )
    known = known_capabilities(toolkit)
    for name in options.capabilities:
        if name not in known:
            raise UsageError(
                f"{toolkit} knows no compute capability '{name}'",
                expected=", ".join(known),
                fix="Orin (SM87) and Thor (SM110) need the full TensorRT: derain build --script",
            )
    # Else it may allocate while it runs, and no CUDA graph could be captured.
    config.set_flag(toolkit.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.capabilities:
        config.num_compute_capabilities = len(options.capabilities)
        for index, name in enumerate(options.capabilities):
            config.set_compute_capability(getattr(toolkit.module.ComputeCapability, name), index)


def _profile(builder: Any, network: Any, card: ModelCard, options: BuildOptions) -> Any:
    ports = {port.name: port for port in card.inputs}
    sizes = options.profile
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name not in ports:
            raise BackendError(
                f"The graph has an input '{tensor.name}', which its card does not declare",
                expected=", ".join(ports),
                fix="Export the model again with derain export",
            )
        context = int(tensor.shape[1]) if ports[tensor.name].layout == "NC" else None
        shapes = [input_shape(ports[tensor.name], size, context) for size in (sizes.min, sizes.opt, sizes.max)]
        profile.set_shape(tensor.name, *shapes)
    return profile


def _timing_cache(config: Any, earlier: bytes, toolkit: Toolkit) -> Any:
    """The timing cache of this build, filled with an earlier one's content where that fits."""
    if toolkit.ahead_of_time:
        return None  # TensorRT-RTX times nothing when it builds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for content in (earlier, b""):
            cache = config.create_timing_cache(content)
            # False: a cache of another GPU or version is refused, not trusted.
            if cache is not None and config.set_timing_cache(cache, False):
                return cache
    return None


def _refusal(parser: Any, logger: Any, toolkit: Toolkit) -> BackendError:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        if error.node_operator() and not _NO_DRIVER.search(error.desc()):
            return BackendError(
                f"{toolkit} refuses layer '{error.node_name()}' ({error.node_operator()}): {error.desc()}",
                fix="Export the model again with a newer derain, or cut it down with derain debug reduce",
            )
    fix = "Export the model again with derain export"
    return BackendError(f"{toolkit} refuses the graph: {logger.first_error()}", fix=fix)
