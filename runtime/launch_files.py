"""``derain run`` on files: one job after the other, each on the whole machine, with its sound and its times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from derain.errors import DerainError, UsageError
from derain.runtime.commands import run_with_progress
from derain.runtime.gate import GateMode, GateSettings
from derain.runtime.job import Job, check_job, inside
from derain.runtime.live.addresses import Address
from derain.runtime.live.job import inference
from derain.runtime.live.outputs import NAME, is_folder, require_places
from derain.runtime.live.rain_log import RainLog
from derain.runtime.live.stream import Policy
from derain.runtime.media.codecs import Codec
from derain.runtime.model import Derainer
from derain.runtime.parts import PartModel
from derain.runtime.pipeline import Derained
from derain.runtime.run_options import RunOptions


def file_jobs(
    options: RunOptions, output: str, addresses: list[Address], codec: Codec, policy: Policy | None
) -> list[Job]:
    """One job for each file, picture or folder, checked as far as names tell.

    Raises:
        UsageError: options that files do not take, or a source and an output that do not go together.
    """
    if policy not in (None, "block"):
        raise UsageError(f"--policy is '{policy}', and no frame of a file is dropped", fix="Leave --policy out")
    if options.once:
        raise UsageError("--once is for live sources, and a file is read once", fix="Leave --once out")
    require_places(output, len(addresses))
    jobs = []
    for address in addresses:
        job = Job(
            Path(address.target),
            _target(output, address, len(addresses)),
            options.side_by_side,
            options.attention,
            codec,
            options.crf,
            options.force,
        )
        check_job(job)
        jobs.append(job)
    return jobs


def run_files(
    options: RunOptions,
    gate: GateMode,
    jobs: list[Job],
    addresses: list[Address],
    model: Derainer,
    look: PartModel | None,
    log: RainLog | None,
) -> None:
    """Run the jobs; one that fails does not keep the others from running.

    Raises:
        DerainError: the only job failed.
        typer.Exit: interrupted, or one of several failed (1).
    """
    failed = False
    for job, address in zip(jobs, addresses, strict=True):
        infer = None
        if gate != "off" or options.steady:
            # A gate and a filter remember what they saw: each file has its own.
            infer = inference(model, look, gate, GateSettings(), options.attention, options.steady)
        try:
            run_with_progress(job, model, infer, None if log is None else _logger(log, address.name))
        except typer.Exit as ended:
            if len(jobs) == 1 or ended.exit_code != 1:
                raise
            failed = True
        except DerainError as error:
            if len(jobs) == 1:
                raise
            failed = True
            typer.echo(f"Error: {error}", err=True)
    if failed:
        raise typer.Exit(1)


def _target(output: str, address: Address, sources: int) -> Path:
    target = output.replace(NAME, address.name)
    source = Path(address.target)
    if not is_folder(target):
        return Path(target)
    if source.is_dir():
        return Path(target) / address.name if sources > 1 and NAME not in output else Path(target)
    return inside(Path(target), source, address.name)


def _logger(log: RainLog, name: str) -> Callable[[Derained], None]:
    def add(derained: Derained) -> None:
        log.add(name, derained.frame.index, derained.frame.seconds or 0.0, derained.intensity, derained.gated)

    return add
