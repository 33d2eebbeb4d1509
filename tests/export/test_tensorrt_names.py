"""Every name of TensorRT's API and every trtexec option that the project uses exists in the versions it supports."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests" / "data" / "tensorrt"
FOLDERS = ("train", "export", "calibration", "runtime", "src/derain")
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0", "rtx-1.7.1")
MODULES = ("tensorrt", "tensorrt_rtx")
# Names that a supported version lacks, with the file that asks for them only where they exist. A name that is used by
# no file must leave the table.
GUARDED = {
    "ComputeCapability": "export/verify_trt.py",  # TensorRT-RTX only; that file imports nothing else
}
# Options that some version lacks; the script that prints them asks for the version first.
GUARDED_OPTIONS: dict[str, str] = {}


def _sources() -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
    ]


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
    # A module handed around keeps the customary name.
    aliases.add("trt")
    found = set(direct)
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id in aliases:
            found.add(".".join(reversed(parts)))
    return found


def _exists(name: str, api: dict[str, list[str]]) -> bool:
    first, *rest = name.split(".")
    if first.startswith("__"):
        return True
    if first not in api:
        return False
    return not rest or rest[0].startswith("__") or rest[0] in api[first]


@pytest.mark.parametrize("version", VERSIONS)
def test_names_exist(version: str) -> None:
    api = json.loads((LISTS / f"api-{version}.json").read_text())
    missing = {
        f"{path.relative_to(ROOT)}: trt.{name}"
        for path in _sources()
        for name in names_used(path.read_text(encoding="utf-8"))
        if not _exists(name, api)
        and not any(
            name.split(".")[0] == guarded.split(".")[0] and str(path.relative_to(ROOT)) == place
            for guarded, place in GUARDED.items()
        )
    }
    assert not missing, f"not in TensorRT {version}: {sorted(missing)}"


def test_the_table_of_guards_is_used() -> None:
    for name, place in GUARDED.items():
        assert name in {used.split(".")[0] for used in names_used((ROOT / place).read_text())} | names_used(
            (ROOT / place).read_text()
        )


def test_the_scan_sees_names() -> None:
    source = "import tensorrt as t\nt.BuilderFlag.TF32\nfrom tensorrt import Logger\ndef f(trt): trt.Nonsense()\n"
    assert names_used(source) >= {"BuilderFlag.TF32", "Logger", "Nonsense"}
    api = json.loads((LISTS / "api-10.3.0.json").read_text())
    assert _exists("BuilderFlag.TF32", api)
    assert not _exists("Nonsense", api)
    assert not _exists("IInt8Calibrator", json.loads((LISTS / "api-11.4.0.json").read_text()))
    used = names_used((ROOT / "export" / "verify_trt.py").read_text())
    assert {"Builder", "OnnxParser", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"} <= used


def options_printed() -> dict[str, set[str]]:
    """trtexec options by file: from lines of scripts and strings of code that are about trtexec."""
    found: dict[str, set[str]] = {}
    option = re.compile(r"(?<![\w-])--[a-z][A-Za-z0-9]+")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if any(parent.is_symlink() for parent in path.parents) or not path.is_file():
                continue
            if path.suffix == ".sh":
                text = path.read_text(encoding="utf-8")
                commands = re.findall(r"trtexec\b(?:[^\n]*\\\n)*[^\n]*", text)
            elif path.suffix == ".py" and "trtexec" in path.stem:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                commands = [
                    node.value
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                ]
            else:
                continue
            used = {name for command in commands for name in option.findall(command)}
            if used:
                found[str(path.relative_to(ROOT))] = used
    return found


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3", "10.16", "11.1"])
def test_trtexec_options_exist(version: str) -> None:
    known = set((LISTS / f"trtexec-flags-{version}.txt").read_text().split())
    missing = {
        f"{path}: {name}"
        for path, names in options_printed().items()
        for name in names
        if name not in known and name not in GUARDED_OPTIONS
    }
    assert not missing, f"not in trtexec {version}: {sorted(missing)}"
