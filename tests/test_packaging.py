"""What the wheel holds is what the tree holds, and the set-up targets say what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("train", "export", "calibration", "runtime")
PACKAGED = {".py", ".onnx", ".toml", ".json", ".jpg", ".txt", ".sh", ".npz", ".html", ".css", ".js"}
LEFT_OUT = (".venv", "build", "dist", "tests", "docs", "runs", "derain-demo", "__pycache__", "native")


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without what an earlier build left: a stale build/ would hide a package forgotten in pyproject.toml."""
    copy = tmp_path_factory.mktemp("tree") / "project"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", *LEFT_OUT)
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def wheel(clean_copy: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(clean_copy / "out")]
    result = subprocess.run(command, cwd=clean_copy, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = (clean_copy / "out").glob("*.whl")
    return file


def tree_files(copy: Path) -> set[str]:
    """Names inside the wheel that the tree's modules and data must have."""
    core = copy / "src" / "derain"
    roots = {"derain": core, **{f"derain/{stage}": copy / stage for stage in STAGES}}
    found = set()
    for inside, folder in roots.items():
        for path in folder.rglob("*"):  # rglob does not follow the links src/derain/<stage>
            if path.is_file() and (path.suffix in PACKAGED or path.name == "py.typed"):
                found.add(f"{inside}/{path.relative_to(folder).as_posix()}")
    return found


def test_every_module_and_data_file_is_in_the_wheel(clean_copy: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = tree_files(clean_copy)
    assert len(expected) > 30
    assert sorted(expected - inside) == [], "missing from the wheel: add the package or data to pyproject.toml"
    assert sorted(inside - expected) == [], "in the wheel but not in the tree"


def test_the_wheel_is_pure_and_brings_only_derain(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"derain"}
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_the_installed_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere and first on the path, it finds its own modules, data and version."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import derain, derain.cli, derain.models; from importlib.resources import files;"
        "typed = (files('derain') / 'py.typed').is_file();"
        "print(derain.__file__, derain.__version__, len(derain.models.shipped()), typed)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    file, version, models, typed = result.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert f"derain-{version}-" in wheel.name
    assert int(models) >= 2
    assert typed == "True"


@pytest.mark.parametrize("stage", STAGES)
def test_type_checkers_find_each_stage(stage: str) -> None:
    link = ROOT / "src" / "derain" / stage
    assert link.is_symlink()
    assert link.readlink() == Path("../..", stage)


def test_no_root_folder_shadows_the_package() -> None:
    assert not (ROOT / "derain").exists()


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:train|export|calibration|runtime|src|tests)/[\w./]*)`", text))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_notice_names_every_picture_that_ships() -> None:
    named = set(re.findall(r"src/derain/models/(\w+\.jpg)", (ROOT / "NOTICE").read_text(encoding="utf-8")))
    assert named == {path.name for path in (ROOT / "src" / "derain" / "models").glob("*.jpg")}


def make(target: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", target, f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}"]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_names_the_package_where_python_has_no_venv(tmp_path: Path) -> None:
    """Debian's python3 without python3-venv has no ensurepip."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    result = make("demo", tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "venv").exists()
