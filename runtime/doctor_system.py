"""How ``derain doctor`` looks at a machine: files, commands, and Python in processes of their own.

A broken piece may crash the process that touches it, not only raise. So whatever is imported or opened is touched by a
child process, and a crash there is a finding like any other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "missing", "warning", "broken"]
_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: its name.
        state: ``missing`` is no fault by itself; ``warning`` works, but not as it should; ``broken`` fails.
        detail: what was found, for people.
        fix: what to do, where there is something to do; empty otherwise.
        facts: what was found, for programs.
    """

    part: str
    state: State
    detail: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a child process said. ``value`` is None when it failed; ``problem`` then says how."""

    value: Any
    problem: str = ""
    crashed: bool = False


class System:
    """This machine. Tests put another one in its place."""

    def read(self, path: str) -> str | None:
        """A small text file without NUL bytes and outer blanks; None when it cannot be read."""
        try:
            with Path(path).open("rb") as stream:
                return stream.read(65536).decode(errors="replace").replace("\0", "").strip()
        except OSError:
            return None

    def matches(self, pattern: str) -> list[str]:
        """Paths that match an absolute pattern, sorted."""
        return sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")))

    def which(self, command: str) -> str | None:
        """Path of a command, None when there is none."""
        return shutil.which(command)

    def run(self, *command: str) -> str | None:
        """What a command prints, both streams; None when it is absent or hangs."""
        try:
            result = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout

    def python(self, code: str, interpreter: str | None = None) -> Answer:
        """Run Python code that prints one JSON document as its last line, in a process of its own."""
        try:
            result = subprocess.run(
                [interpreter or sys.executable, "-c", code],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(None, f"no answer within {_SECONDS:g} s", crashed=True)
        except OSError as error:
            return Answer(None, str(error))
        if result.returncode < 0:
            try:
                name = signal.Signals(-result.returncode).name
            except ValueError:
                name = f"signal {-result.returncode}"
            return Answer(None, f"the process crashed with {name}", crashed=True)
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        if result.returncode == 0 and lines:
            try:
                return Answer(json.loads(lines[-1]))
            except ValueError:
                return Answer(None, f"an answer that is no JSON: {lines[-1][:200]}")
        errors = [line for line in result.stderr.splitlines() if line.strip()]
        return Answer(None, errors[-1][:300] if errors else f"exit code {result.returncode}")

    def environment(self, name: str) -> str | None:
        """A variable of the environment."""
        return os.environ.get(name)


def module_facts(system: System, module: str, facts: str = "{}") -> Answer:
    """Import a module elsewhere.

    Args:
        facts: a Python expression for more facts, in which ``m`` is the module.

    Returns:
        Answer with ``{"version": ..., **facts}``, or the import's problem.
    """
    code = (
        f"import json, importlib; m = importlib.import_module({module!r}); "
        f"print(json.dumps({{'version': str(getattr(m, '__version__', '')), **({facts})}}))"
    )
    return system.python(code)


def is_absent(answer: Answer, module: str) -> bool:
    """Whether an import failed because the module is not installed, and not for another reason."""
    return f"No module named '{module}'" in answer.problem
