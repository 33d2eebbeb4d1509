"""From the options of ``derain run`` to a run: a file job, or a live one."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from derain.companions import beside
from derain.errors import UsageError
from derain.models import resolve
from derain.runtime.commands import run_with_progress
from derain.runtime.gate import MODES, GateSettings
from derain.runtime.job import Job
from derain.runtime.live.addresses import Address, parse_address
from derain.runtime.live.job import LiveOptions, inference, stream_specs
from derain.runtime.live.run import LiveRun
from derain.runtime.live.sinks import CODECS, RainLog
from derain.runtime.live.stream import POLICIES
from derain.runtime.model import Derainer, load
from derain.runtime.parts import PartModel
from derain.runtime.pipeline import Derained
from derain.runtime.tiling import load_tiled

if TYPE_CHECKING:
    from derain.runtime.preview.server import PreviewServer

T = TypeVar("T")
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class RunOptions:
    """The options of ``derain run``, as they were given."""

    model: str
    sources: list[str]
    output: str | None
    side_by_side: bool
    attention: bool
    gate: str
    rain_log: Path | None
    tile: int | None
    steady: float
    policy: str | None
    preview: bool
    preview_address: str
    preview_token: str | None
    backend: str
    threads: int | None
    codec: str
    crf: int
    force: bool


def launch(options: RunOptions) -> None:
    """Run, until the sources end or a signal comes.

    Raises:
        UsageError: options that do not go together.
        typer.Exit: see :func:`run_with_progress` and :func:`derain.runtime.live.console.run_live`.
    """
    addresses = [parse_address(text) for text in options.sources]
    gate = _one_of(options.gate, MODES, "--gate")
    if options.rain_log is not None and gate == "off":
        raise UsageError("--rain-log needs a rain gate that measures", fix="Add --gate auto or --gate always")
    if options.output is None and not options.preview and options.rain_log is None:
        raise UsageError("Nothing would be done with the result", fix="Give an output (-o), --preview, or --rain-log")
    file_job = len(addresses) == 1 and not addresses[0].live and not options.preview and _is_path(options.output)
    if not file_job:
        _check_live(options, addresses)
    with ExitStack() as stack:
        model = _open_model(options, stack)
        look = _attention_part(options, stack) if gate == "auto" else None
        log = _rain_log(options, stack)
        if not file_job:
            _launch_live(options, addresses, model, look, log, stack)
            return
        infer = None
        if gate != "off" or options.steady:
            infer = inference(model, look, gate, GateSettings(), options.attention, options.steady)
        name = addresses[0].name
        job = Job(
            Path(addresses[0].target),
            Path(options.output or ""),
            options.side_by_side,
            options.attention,
            options.crf,
            options.force,
        )
        run_with_progress(job, model, infer, None if log is None else _logger(log, name))


def _launch_live(
    options: RunOptions,
    addresses: list[Address],
    model: Derainer,
    look: PartModel | None,
    log: RainLog | None,
    stack: ExitStack,
) -> None:
    from derain.runtime.live.console import run_live

    live = LiveOptions(
        output=options.output,
        policy=None if options.policy is None else _one_of(options.policy, POLICIES, "--policy"),
        replay=options.preview and options.output is None,
        gate=_one_of(options.gate, MODES, "--gate"),
        side_by_side=options.side_by_side,
        codec=_one_of(options.codec, CODECS, "--codec"),
        crf=options.crf,
        keep_map=options.preview,
        steady=options.steady,
    )
    run = LiveRun(stream_specs(addresses, model, live, look, log))
    server = _preview(options, run) if options.preview else None

    def serve() -> None:
        if server is not None:
            stack.callback(server.stop)
            server.start()
            print(f"Preview: {server.url}", file=sys.stderr, flush=True)

    run_live(run, f"{model.card.name} with {model.device} ({model.backend_reason})", serve)


def _preview(options: RunOptions, run: LiveRun) -> PreviewServer:
    from derain.runtime.preview.server import PreviewServer

    host, _, port = options.preview_address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--preview-address is '{options.preview_address}'", expected="HOST:PORT")
    token = options.preview_token
    if token is None and host not in _LOCAL:
        token = secrets.token_urlsafe(16)
    return PreviewServer(run, host, int(port), token)


def _check_live(options: RunOptions, addresses: list[Address]) -> None:
    if options.attention:
        raise UsageError("--attention writes rain maps of files only", fix="Use --rain-log or --preview")
    output = options.output
    if output is None or options.force or not _is_path(output):
        return
    for address in addresses:
        path = Path(output.replace("{name}", address.name))
        if path.is_file():
            raise UsageError(f"Output '{path}' exists already", fix="Give another name, or overwrite it with --force")


def _open_model(options: RunOptions, stack: ExitStack) -> Derainer:
    if options.tile is not None:
        return stack.enter_context(load_tiled(options.model, options.backend, options.threads, options.tile))
    return stack.enter_context(load(options.model, options.backend, options.threads))


def _attention_part(options: RunOptions, stack: ExitStack) -> PartModel | None:
    """The attention-only graph beside the model; without it the whole graph looks, at the same low rate."""
    path = beside(resolve(options.model), "attention")
    if not path.exists():
        return None
    look = PartModel(path, "attention", options.backend, options.threads)
    stack.callback(look.close)
    return look


def _rain_log(options: RunOptions, stack: ExitStack) -> RainLog | None:
    if options.rain_log is None:
        return None
    if str(options.rain_log) == "-":
        return RainLog(sys.stdout)
    return RainLog(stack.enter_context(options.rain_log.open("w", encoding="utf-8")))


def _logger(log: RainLog, name: str) -> Callable[[Derained], None]:
    def add(derained: Derained) -> None:
        log.add(name, derained.frame.index, derained.frame.seconds or 0.0, derained.intensity, derained.gated)

    return add


def _is_path(output: str | None) -> bool:
    return output is not None and "://" not in output and " ! " not in output and not output.startswith("gst:")


def _one_of(value: str, choices: Sequence[T], option: str) -> T:
    """The choice that is written like ``value``.

    Raises:
        UsageError: there is none.
    """
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} is '{value}'", expected=f"one of: {', '.join(map(str, choices))}")
