"""Pages say what is true: each command line on them parses, and each example compiles and imports what exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from derain.cli import app
from derain.models import resolve
from derain.runtime.debug_commands import _MAIN

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("export.md", "pipelines.md", "serving.md", "tensorrt.md", "on-a-jetson.md")


def blocks(page: str, language: str = "") -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines(page: str) -> list[list[str]]:
    """Arguments of each ``derain`` on a page, without those that stand for something else, as ``...`` does."""
    quoted = re.findall(r"`(derain [^`]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    lines = [line for block in (*blocks(page), *blocks(page, "sh")) for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in (*lines, *quoted):
        for part in line.removeprefix("$ ").split("&&"):
            words = re.split(r"\s#\s|\s{3,}", part.strip())[0]
            if words.startswith("derain ") and "..." not in words:
                found.append(shlex.split(words)[1:])
    return found


class WrongCommandError(Exception):
    """What the command line answers. Typer brings a click of its own, or takes the installed one: neither is named."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.format_message())
        self.incomplete = type(error).__name__ == "MissingParameter"


def parse(arguments: list[str]) -> None:
    """As the command line would, up to the point of running anything."""
    command: Any = get_command(app)
    context: Any = None
    try:
        while True:
            context = command.make_context(command.name, list(arguments), parent=context)
            if not hasattr(command, "resolve_command"):
                return
            _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as error:
        if type(error).__name__ == "Exit":  # of --help
            return
        if not hasattr(error, "format_message"):
            raise
        raise WrongCommandError(error) from error


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str) -> None:
    lines = command_lines(page)
    assert lines
    for arguments in lines:
        if len(arguments) == 1 and arguments[0] in ("doctor", "models"):
            continue
        try:
            parse(arguments)
        except WrongCommandError as error:
            if not error.incomplete:  # it may be named alone in the text, as "derain inspect"
                pytest.fail(f"{page}: derain {shlex.join(arguments)}: {error}")


@pytest.mark.parametrize("page", PAGES)
def test_examples_compile_and_import_what_exists(page: str) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("derain"):
                module = importlib.import_module(str(node.module))
                missing = [item.name for item in node.names if not hasattr(module, item.name)]
                assert not missing, f"{page}: {node.module} has no {missing}"


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(WrongCommandError, match="--nonsense"):
        parse(["build", "edge", "--nonsense"])
    assert ["build", "edge", "--for", "SM86", "--for", "SM120"] in command_lines("tensorrt.md")


def test_polygraphys_lines_run_and_say_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of output on the page is a line of the real one, in this order; ``...`` stands for what is left out."""
    pytest.importorskip("polygraphy")
    shutil.copyfile(resolve("edge"), tmp_path / "edge.onnx")
    (session,) = [block for block in blocks("export.md") if "$ polygraphy" in block]
    for part in session.split("$ ")[1:]:
        command, *wanted = part.splitlines()
        _, *arguments = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        given = iter(line.strip() for line in done.stdout.splitlines())
        for line in wanted:
            text = line.strip().removesuffix("...")
            assert any(found.startswith(text) for found in given), f"{command}: not in the output: {line}"
