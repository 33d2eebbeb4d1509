"""Every name of TensorRT's API and every trtexec option that the project uses exists in the versions it supports."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests" / "data" / "tensorrt"
FOLDERS = ("train", "export", "calibration", "runtime", "src/derain")
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0", "rtx-1.7.1")
MODULES = ("tensorrt", "tensorrt_rtx")
# Names that a supported version lacks, with the files that ask for them only where they exist: a class with all of its
# members, or one member. A name that is used by no file must leave the table.
# All are of TensorRT-RTX alone: verify_trt imports nothing else, and the runtime asks `toolkit.ahead_of_time` first.
GUARDED = {
    "ComputeCapability": {"export/verify_trt.py", "runtime/engine/build.py"},
    "BuilderFlag.REQUIRE_USER_ALLOCATION": {"runtime/engine/build.py"},
    "DynamicShapesKernelSpecializationStrategy": {"runtime/backends/tensorrt_engine.py"},
}
# trtexec options that some version lacks, with the test of the version that stands before them in the script.
GUARDED_OPTIONS = {"--includeDataTransfers": 'at_least "$version" 11 0'}
# Pages that speak of TensorRT 10 alone where they show these.
PAGES_OF_10 = {"docs/calibration.md": {"--calib", "--fp16"}}


def _sources() -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
    ]


@cache
def names_used(source: str) -> set[str]:
    """Attributes of TensorRT's module, dotted: ``BuilderFlag.TF32`` of ``trt.BuilderFlag.TF32``."""
    tree = ast.parse(source)
    aliases = {
        item.asname or item.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for item in node.names
        if item.name in MODULES
    }
    direct = {
        item.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in MODULES
        for item in node.names
    }
    # A module handed around keeps the customary name, or is the module of a toolkit.
    aliases |= {"trt", "self._trt", "toolkit.module", "self._toolkit.module"}
    found = set(direct)
    for node in ast.walk(tree):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if not re.fullmatch(r"[\w.]+", dotted):
            continue
        found |= {dotted.removeprefix(f"{alias}.") for alias in aliases if dotted.startswith(f"{alias}.")}
    return found


def _exists(name: str, api: dict[str, list[str]]) -> bool:
    first, *rest = name.split(".")
    if first.startswith("__"):
        return True
    if first not in api:
        return False
    return not rest or rest[0].startswith("__") or rest[0] in api[first]


def guarded(name: str, place: str) -> bool:
    """Whether a file is known to use a name of TensorRT only where it exists."""
    return any(
        (name == known or name.startswith(f"{known}.")) and place in allowed for known, allowed in GUARDED.items()
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_names_exist(version: str) -> None:
    api = json.loads((LISTS / f"api-{version}.json").read_text())
    missing = {
        f"{path.relative_to(ROOT)}: trt.{name}"
        for path in _sources()
        for name in names_used(path.read_text(encoding="utf-8"))
        if not _exists(name, api) and not guarded(name, str(path.relative_to(ROOT)))
    }
    assert not missing, f"not in TensorRT {version}: {sorted(missing)}"


def test_the_table_of_guards_is_used() -> None:
    for name, places in GUARDED.items():
        for place in places:
            used = names_used((ROOT / place).read_text())
            assert any(other == name or other.startswith(f"{name}.") for other in used), f"{place}: {name}"
    assert guarded("ComputeCapability.SM86", "export/verify_trt.py")
    assert not guarded("BuilderFlag.NONSENSE", "runtime/engine/build.py")
    assert not guarded("ComputeCapability", "runtime/engine/find.py")


def test_the_scan_sees_names() -> None:
    source = "import tensorrt as t\nt.BuilderFlag.TF32\nfrom tensorrt import Logger\ndef f(trt): trt.Nonsense()\n"
    assert names_used(source) >= {"BuilderFlag.TF32", "Logger", "Nonsense"}
    api = json.loads((LISTS / "api-10.3.0.json").read_text())
    assert _exists("BuilderFlag.TF32", api)
    assert not _exists("Nonsense", api)
    assert not _exists("IInt8Calibrator", json.loads((LISTS / "api-11.4.0.json").read_text()))
    assert names_used("class A:\n def f(self): self._trt.Runtime\ntoolkit.module.Builder") == {"Runtime", "Builder"}
    used = names_used((ROOT / "export" / "verify_trt.py").read_text())
    assert {"Builder", "OnnxParser", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"} <= used


_OPTION = re.compile(r"(?<![\w-])--[a-z][A-Za-z0-9]+")


def script_options(text: str) -> set[str]:
    """All options in a script of trtexec; what a comment says of other commands is none."""
    return {name for line in text.splitlines() if not line.lstrip().startswith("#") for name in _OPTION.findall(line)}


def page_options(text: str) -> set[str]:
    """Options after the word trtexec in a page's code, up to the end of the line."""
    lines = [line for block in re.findall(r"```.*?```", text, re.DOTALL) for line in block.splitlines()]
    quoted = re.findall(r"`([^`\n]+)`", text)
    commands = [line for line in (*lines, *quoted) if re.match(r"\s*(\S*/)?trtexec\s", line)]
    return {name for command in commands for name in _OPTION.findall(command)}


SCRIPTS = {path.name: path.read_text() for path in sorted((ROOT / "runtime" / "scripts").glob("*.sh"))}


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "10.16", "11.1"])
def test_trtexec_options_exist(version: str) -> None:
    known = set((LISTS / f"trtexec-flags-{version}.txt").read_text().split())
    printed = {name: script_options(text) for name, text in SCRIPTS.items()}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    printed |= {str(path.relative_to(ROOT)): page_options(path.read_text(encoding="utf-8")) for path in pages}
    missing = {
        f"{place}: {name}"
        for place, names in printed.items()
        for name in names
        if name not in known | GUARDED_OPTIONS.keys() | (PAGES_OF_10.get(place, set()) if version >= "11" else set())
    }
    assert not missing, f"not in trtexec {version}: {sorted(missing)}"


def test_options_that_a_version_lacks_stand_behind_a_test_of_the_version() -> None:
    for option, test in GUARDED_OPTIONS.items():
        places = [text for text in SCRIPTS.values() if option in script_options(text)]
        assert places
        for text in places:
            used = next(line for line in text.splitlines() if option in line and not line.lstrip().startswith("#"))
            before = text[: text.index(used)].splitlines()[-1]
            assert test in before, f"{option} is not behind: {test}"


def test_the_scan_sees_options() -> None:
    build, bench = SCRIPTS["trtexec-build.sh"], SCRIPTS["trtexec-bench.sh"]
    assert {"--stronglyTyped", "--timingCacheFile", "--useDLACore", "--maxShapes"} <= script_options(build)
    assert {"--exportTimes", "--infStreams", "--noDataTransfers"} <= script_options(bench)
    assert "--script" not in script_options(build) | script_options(bench)
    assert page_options("```\ntrtexec --onnx=a.onnx --fp16\n```\n`trtexec --exportTimes`") == {
        "--onnx", "--fp16", "--exportTimes",
    }  # fmt: skip
