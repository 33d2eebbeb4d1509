"""`derain debug`: Polygraphy takes our command lines, and cuts a refused model down to what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from engine_machines import SIZES
from onnx import TensorProto, helper
from standin import card_of, save_model
from typer.testing import CliRunner

from derain.card import CARD_KEY, Profile, read_card
from derain.cli import app
from derain.errors import UsageError
from derain.models import resolve, shipped
from derain.runtime.debug_commands import (
    _MAIN,
    compare_arguments,
    convert_arguments,
    fixed_model,
    loader_script,
    refusal,
)
from derain.runtime.engine.driver import probe_driver
from derain.runtime.engine.toolkit import import_toolkit

pytest.importorskip("polygraphy")
NO_GPU = pytest.mark.skipif(probe_driver().usable, reason="written for a machine without a GPU")


def derain(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["debug", *arguments])


def refused_model(path: Path) -> Path:
    """Seven nodes, of which TensorRT refuses one: it has no Transpose of uint8."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["f"], "body/cast", to=TensorProto.FLOAT),
        helper.make_node("Relu", ["f"], ["r"], "body/relu"),
        helper.make_node("Cast", ["r"], ["u"], "body/back", to=TensorProto.UINT8),
        helper.make_node("Transpose", ["u"], ["t"], "body/turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["g"], "body/again", to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["g"], ["s"], "body/sigmoid"),
        helper.make_node("Abs", ["s"], ["derained"], "body/abs"),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["B", "H", "W", 3])
    clean = helper.make_tensor_value_info("derained", TensorProto.FLOAT, ["B", 3, "H", "W"])
    graph = helper.make_graph(nodes, "g", [frame], [clean])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card_of(profile=SIZES).to_json()})
    onnx.save(model, str(path))
    return path


@pytest.mark.full
@NO_GPU
def test_a_refused_model_is_cut_down(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx_graphsurgeon")
    path, reduced = refused_model(tmp_path / "bad.onnx"), tmp_path / "reduced.onnx"
    result = derain("reduce", str(path), "-o", str(reduced), "--for", "SM86")
    assert result.exit_code == 0, result.output
    assert "body/turn" in [node.name for node in onnx.load(str(reduced)).graph.node]
    assert len(onnx.load(str(reduced)).graph.node) <= 3
    assert "refuses layer 'body/" in result.stderr


@NO_GPU
@pytest.mark.parametrize("name", sorted(shipped()))
def test_models_that_build_are_not_cut_down(name: str, tmp_path: Path) -> None:
    """Fixing a shipped model's sizes must not break it: its padding is computed from the frame's size."""
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx_graphsurgeon")
    result = derain("reduce", name, "-o", str(tmp_path / "reduced.onnx"), "--for", "SM86")
    assert result.exit_code == 2
    assert "there is nothing to reduce" in result.stderr
    path = resolve(name)
    fixed = tmp_path / "fixed.onnx"
    fixed.write_bytes(fixed_model(path, read_card(path), (1, 45, 62)))
    card = read_card(path).model_copy(update={"profile": Profile(min=(1, 45, 62), opt=(1, 45, 62), max=(1, 45, 62))})
    assert refusal(fixed, card, import_toolkit("tensorrt-rtx"), "SM86") == ""


def test_polygraphy_takes_the_comparison(tmp_path: Path) -> None:
    """With --gen-script it checks every argument and writes the program it would run."""
    path = save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))
    loader = tmp_path / "picture.py"
    loader.write_text(loader_script(path, (1, 48, 64)))
    arguments = compare_arguments(path, card_of(profile=SIZES), (1, 48, 64), loader, None)
    program = tmp_path / "program.py"
    result = subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments, "--gen-script", str(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"},
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    text = program.read_text()
    assert "strongly_typed=True" in text
    assert "OnnxrtRunner" in text
    assert "TrtRunner" in text
    spaces: dict[str, Any] = {}
    exec(compile(loader.read_text(), str(loader), "exec"), spaces)
    (inputs,) = spaces["load_data"]()
    assert inputs["frame"].shape == (1, 48, 64, 3)


@NO_GPU
def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    path = save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))
    result = derain("compare", str(path))
    assert result.exit_code == 1
    assert "runs the engine, and there is no NVIDIA driver here" in result.stderr
    result = derain("reduce", str(path), "-o", str(path), "--for", "SM86")
    assert "is the model itself" in result.stderr
    with pytest.raises(UsageError, match="--for is 'new'"):
        convert_arguments(path, "new")
    assert convert_arguments(path, "SM120")[-1] == "12.0"
