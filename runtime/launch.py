"""From the options of ``derain run`` to a run: a file job, or a live one."""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from derain.companions import beside
from derain.errors import UsageError
from derain.models import resolve
from derain.runtime.gate import MODES
from derain.runtime.job import Job
from derain.runtime.launch_files import file_jobs, run_files
from derain.runtime.live.addresses import Address, parse_address
from derain.runtime.live.job import LiveOptions, stream_specs, with_distinct_names
from derain.runtime.live.outputs import NULL, is_path, require_free
from derain.runtime.live.rain_log import LogForm, RainLog
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import POLICIES
from derain.runtime.media.codecs import CODECS, require_crf
from derain.runtime.model import Derainer, load
from derain.runtime.parts import PartModel
from derain.runtime.run_options import RunOptions, one_of
from derain.runtime.tiling import load_tiled

if TYPE_CHECKING:
    from derain.runtime.preview.server import PreviewServer

PREVIEW_ADDRESS = "127.0.0.1:8270"
_LOCAL = ("127.0.0.1", "localhost", "::1")


def launch(options: RunOptions) -> None:
    """Run, until the sources end or a signal comes.

    Raises:
        UsageError: options that do not go together.
        typer.Exit: see :func:`run_with_progress` and :func:`derain.runtime.live.console.run_live`.
    """
    addresses = with_distinct_names([parse_address(text) for text in options.sources])
    # Whoever looks at the page wants to see the rain; measuring it costs next to nothing there.
    gate = one_of(options.gate or ("always" if options.preview else "off"), MODES, "--gate")
    codec = one_of(options.codec, CODECS, "--codec")
    policy = None if options.policy is None else one_of(options.policy, POLICIES, "--policy")
    require_crf(codec, options.crf)
    if options.rain_log is not None and gate == "off":
        raise UsageError("--rain-log needs a rain gate that measures", fix="Add --gate auto or --gate always")
    if options.output is None and not options.preview and options.rain_log is None:
        raise UsageError("Nothing would be done with the result", fix="Give an output (-o), --preview, or --rain-log")
    if not options.preview and options.preview_address != PREVIEW_ADDRESS:
        raise UsageError("--preview-address is given without --preview", fix="Add --preview")
    output = None if options.output is None else options.output.removeprefix("file://")
    files = not options.preview and not any(address.live for address in addresses)
    jobs: list[Job] = []
    if files and output is not None and is_path(output):
        jobs = file_jobs(options, output, addresses, codec, policy)
    live = LiveOptions(
        output=output,
        policy=policy,
        replay=options.preview and output is None,
        once=options.once,
        gate=gate,
        side_by_side=options.side_by_side,
        codec=codec,
        crf=options.crf,
        keep_map=options.preview,
        steady=options.steady,
    )
    if not jobs:
        _check_live(options, live, addresses)
    with ExitStack() as stack:
        model = _open_model(options, stack)
        look = _attention_part(options, stack) if gate == "auto" else None
        log = _rain_log(options, stack)
        if jobs:
            run_files(options, gate, jobs, addresses, model, look, log)
        else:
            _launch_live(options, live, addresses, model, look, log, stack)
        if log is not None and log.problem is not None:
            raise log.problem


def _launch_live(
    options: RunOptions,
    live: LiveOptions,
    addresses: list[Address],
    model: Derainer,
    look: PartModel | None,
    log: RainLog | None,
    stack: ExitStack,
) -> None:
    from derain.runtime.live.console import run_live

    run = LiveRun(stream_specs(addresses, model, live, look, log))
    if options.preview:
        # Before any camera is opened or any file is begun: an address that is taken is told now.
        server = _preview(options, run)
        stack.callback(server.stop)
        server.start()
        print(f"Preview: {server.url}", file=sys.stderr, flush=True)
    run_live(run, f"{model.card.name} with {model.device} ({model.backend_reason})")


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


def _check_live(options: RunOptions, live: LiveOptions, addresses: list[Address]) -> None:
    if options.attention:
        raise UsageError("--attention writes rain maps of files only", fix="Use --rain-log or --preview")
    for address in addresses:
        if live.output is not None and not options.force:
            require_free(live.output, address.name)
        if address.kind == "file" and not Path(address.target).exists():
            raise UsageError(f"Source '{address.target}' does not exist", expected="a picture, a folder, or a video")
    if live.output not in (None, NULL) and any(address.kind == "file" for address in addresses):
        print("Note: this output has no sound; a file written by -o without --preview keeps it.", file=sys.stderr)


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
    path = options.rain_log
    if path is None:
        return None
    if str(path) == "-":
        log = RainLog(sys.stdout, vital=True)
    else:
        form: LogForm = "csv" if path.suffix.lower() == ".csv" else "json"
        vital = options.output is None and not options.preview
        path.parent.mkdir(parents=True, exist_ok=True)
        log = RainLog(path.open("w", encoding="utf-8", newline=""), form, vital)
    stack.callback(log.close)
    return log
