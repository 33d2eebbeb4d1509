"""``derain doctor``: what this machine has, what is missing for what, and how to get it. Never crashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from derain.runtime.doctor_system import Finding, System

Probe = tuple[str, "Callable[[System], Finding]"]
_WORKERS = 2
_STYLES = {"ok": "green", "missing": "dim", "warning": "yellow", "broken": "red"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what this machine has for deraining, what is missing, and how to install it.

    Exits with 1 when no model can run here.
    """
    import json as json_package

    from derain import __version__
    from derain.runtime.doctor_system import System

    findings = examine(System())
    if json:
        document = {"derain": __version__, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json_package.dumps(document, indent=2))
    else:
        print_findings(findings)
    if any(finding.part == "backends" and finding.state != "ok" for finding in findings):
        raise typer.Exit(1)


def probes() -> list[Probe]:
    """All probes with their names, in the order of the report."""
    from derain.runtime import doctor_gpu, doctor_software

    return [
        ("Python", doctor_software.probe_python),
        ("GPU", doctor_gpu.probe_gpu),
        ("Jetson", doctor_gpu.probe_jetson),
        ("CUDA for Python", doctor_gpu.probe_cuda),
        ("TensorRT", doctor_gpu.probe_tensorrt),
        ("TensorRT-RTX", doctor_gpu.probe_tensorrt_rtx),
        ("trtexec", doctor_gpu.probe_trtexec),
        ("ONNX Runtime", doctor_software.probe_onnxruntime),
        ("OpenVINO", doctor_software.probe_openvino),
        ("backends", doctor_software.probe_backends),
        ("OpenCV", doctor_software.probe_opencv),
        ("GStreamer", doctor_software.probe_gstreamer),
        ("video codecs", doctor_software.probe_codecs),
        ("memory", doctor_software.probe_memory),
        ("engine cache", doctor_software.probe_cache),
    ]


def examine(system: System, chosen: Sequence[Probe] | None = None) -> list[Finding]:
    """Run probes. One that fails for a reason nobody thought of is a finding, too.

    Args:
        system: the machine.
        chosen: probes; None for all.
    """
    from derain.runtime.doctor_system import Finding

    def look(probe: Probe) -> Finding:
        name, examine_one = probe
        try:
            return examine_one(system)
        except Exception as error:
            detail = f"could not be looked at: {type(error).__name__}: {error}"
            return Finding(name, "broken", detail, "Report this as a bug of derain")

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(look, probes() if chosen is None else chosen))


def print_findings(findings: list[Finding]) -> None:
    """Print findings as a table, remedies below their findings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            Text(finding.part, style="bold"), Text(finding.state, style=_STYLES[finding.state]), Text(finding.detail)
        )
        if finding.fix:
            table.add_row("", "", Text(f"-> {finding.fix}", style="cyan"))
    Console(highlight=False).print(table)
    usable = next((finding for finding in findings if finding.part == "backends"), None)
    reasons: dict[str, list[str]] = {}
    for name, problem in (usable.facts if usable else {}).items():
        if problem:
            reasons.setdefault(str(problem).replace(f"The backend '{name}' ", ""), []).append(name)
    for reason, names in reasons.items():
        Console(highlight=False).print(Text(f"\nNot usable here: {', '.join(names)}: {reason}"))
