"""The command line: what it lists, and how it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from derain import __version__
from derain.cli import CommandGroup, app
from derain.errors import ModelFileError, UsageError

COMMANDS = sorted(command.name or "" for command in app.registered_commands)
runner = CliRunner()


def app_that(raises: Callable[[], object]) -> typer.Typer:
    """An application of our group with one command."""
    application = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

    @application.command()
    def work() -> None:
        raises()

    @application.callback()
    def options() -> None:
        pass

    return application


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


def test_help_lists_every_command() -> None:
    result = runner.invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert {"demo", "run", "train", "eval", "export", "inspect", "models"} <= set(COMMANDS)
    assert all(f" {name} " in result.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = runner.invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Usage" in result.output
    command = next(item for item in app.registered_commands if item.name == name)
    assert command.help or (command.callback is not None and command.callback.__doc__), f"{name} has no description"


@pytest.mark.parametrize("arguments", [["--nonsense"], ["nonsense"], ["models", "--nonsense"], ["models", "surplus"]])
def test_wrong_options_end_with_two(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).output == f"derain {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelFileError("'[a].onnx' is empty", fix="Copy it"), 1, "Error: '[a].onnx' is empty. Copy it.\n"),
        (UsageError("No such thing"), 2, "Error: No such thing.\n"),
        (KeyboardInterrupt(), 130, "Error: Interrupted.\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.mp4"),
            1,
            "Error: The system refused 'out.mp4': No space left on device.\n",
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            1,
            "Error: derain work needs the package 'torch', which is not installed. "
            'Run: pip install "derain[train]".\n',
        ),
    ],
)
def test_what_a_user_can_cause_is_one_line(error: BaseException, code: int, line: str) -> None:
    result = runner.invoke(app_that(raising(error)), ["work"], prog_name="derain")
    assert result.exit_code == code
    assert result.stderr == line
    assert result.stdout == ""


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), OSError("without errno"), ModuleNotFoundError("x", name="derain.typo")]
)
def test_bugs_keep_their_traceback(error: BaseException) -> None:
    result = runner.invoke(app_that(raising(error)), ["work"])
    assert result.exception is error


def derain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "derain", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_an_error_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    result = derain("inspect", str(tmp_path / "empty.onnx"))
    assert result.returncode == 1
    assert "is empty (0 bytes)" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_commands_stay_listed_where_optional_packages_are_missing(tmp_path: Path) -> None:
    """A package of the same name that cannot be imported stands in front of the installed one."""
    for package in ("torch", "onnx", "onnxruntime", "cv2", "openvino", "lightning_fabric"):
        message = f"No module named {package!r}"
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({message!r}, name={package!r})\n")
    result = derain("--help", PYTHONPATH=str(tmp_path), COLUMNS="200")
    assert result.returncode == 0, result.stderr
    assert all(f" {name} " in result.stdout for name in COMMANDS)


def test_importing_the_command_line_is_light() -> None:
    heavy = ["torch", "cv2", "onnx", "onnxruntime", "openvino", "matplotlib", "scipy", "av"]
    code = f"import sys, derain.cli; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f'"{sys.executable}" -m derain --help | head -c 1'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120)
    assert result.stderr == ""
