"""The page of results is what its generator makes of the results beside it: nobody edits a figure by hand."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_page", FOLDER / "make_page.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_results(generator: ModuleType) -> None:
    made = generator.page(generator.read_results())
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == made, "run: docs/benchmarks/make_page.py --page-only"


def test_the_page_names_only_files_that_exist() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert len(links) >= 3
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_every_result_on_the_page_has_a_command(generator: ModuleType) -> None:
    commands = generator.commands(200, Path("clip.mp4"))
    assert {path.stem for path in generator.RESULTS.glob("*.json")} <= commands.keys()
    for name, result in generator.read_results().items():
        assert result.source == "derain"
        assert result.machine is not None
        assert result.command.startswith("derain bench "), name
        assert not re.search(r"(^|\s)/", result.command), "a path of this machine"


def test_a_page_without_results_claims_nothing(generator: ModuleType) -> None:
    page = generator.page({})
    assert page.count("Not measured yet") == 5
    assert "![" not in page


def test_the_folder_of_the_clip_is_hidden(generator: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"command": "derain bench nano --input /somewhere/x/rain.mp4"}')
    generator.hide_folder(path, "/somewhere/x")
    assert path.read_text() == '{"command": "derain bench nano --input rain.mp4"}'
