"""`derain calibrate` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import Result
from tiny_model import scene, tiny_model, write_pairs
from typer.testing import CliRunner

from derain.calibration.descriptors import digest
from derain.calibration.legacy import read_cache
from derain.calibration.qdq import quantized_convolutions
from derain.calibration.ranges import METHODS
from derain.calibration.session import Runner
from derain.card import Profile, read_card
from derain.cli import app
from derain.images import read_image, write_image
from derain.metrics import psnr
from derain.runtime.model import load

CLI = CliRunner()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = write_pairs(tmp_path / "data", 8)
    (tmp_path / "split.json").write_text(json.dumps({"data": ["01.png", "04.png"]}))
    return folder


def _calibrate(model: Path, frames: Path, *more: str) -> Result:
    split = ["--split", str(frames.parent / "split.json")] if frames.name == "data" else []
    return CLI.invoke(app, ["calibrate", str(model), "--frames", str(frames), *split, *more])


def test_int8(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    output, cache = tmp_path / "out.int8.onnx", tmp_path / "out.cache"
    result = _calibrate(tiny_file, pairs, "-o", str(output), "--cache", str(cache), "--max-drop", "0.5dB")
    assert result.exit_code == 0, result.output
    card = read_card(output)
    assert card.precision.kind == "int8"
    record = card.calibration
    assert record is not None
    assert record.int8 == quantized_convolutions(onnx.load(str(output)))
    assert record.float32 == ["context/Conv"]
    assert set(record.compared) == {*METHODS, "mixed"}
    assert record.compared[str(record.ranges)] < max(record.compared.values())
    assert (record.checked, record.paired) == (2, 2)
    assert len(record.frames) == 6
    assert all(len(digest) == 16 for digest in record.frames)
    assert record.drop <= 0.5
    assert "/" not in record.worst_frame
    report = tmp_path / "out.int8.report"
    assert read_image(report / "worst.png").shape == (64, 3 * 96 + 16, 3)
    assert cv2.imread(str(report / "sensitivity.png")) is not None
    document = json.loads((report / "report.json").read_text())
    assert list(document["chosen"].values()) == record.frames
    assert set(document["sensitivity"]) == {*record.int8, *record.float16, "stage/Add", "stage/Add.2"}
    assert "attention/Conv" in record.equalized[0].inputs
    assert cache.read_text().startswith("TRT-100300-EntropyCalibration2\n")
    assert read_cache(cache)["h1"] == pytest.approx(document["ranges"]["h1"] / 127, rel=1e-6)
    with load(output) as model:
        assert model.backend_name == "onnxruntime"
        frame = scene(30)[0]
        # What runs is what was judged, biases and all.
        assert np.array_equal(model(frame), Runner(onnx.load(str(output)), card)(frame))


def test_it_repeats_exactly(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for output in outputs:
        _calibrate(tiny_file, pairs, "-o", str(output), "--max-drop", "1")
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_the_gate_keeps_layers(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    """A limit between the loss with all layers in INT8 and with none moves some. Without truth any change is a loss."""
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    _calibrate(tiny_file, pairs / "rainy", "-o", str(first), "--max-drop", "5")
    whole = read_card(first).calibration
    assert whole is not None
    assert whole.float16 == []
    assert whole.psnr_before is None
    limit = f"{whole.drop / 2:.6f}"
    result = _calibrate(tiny_file, pairs / "rainy", "-o", str(second), "--max-drop", limit)
    assert result.exit_code == 0, result.output
    some = read_card(second).calibration
    assert some is not None
    assert some.float16
    assert some.drop <= float(limit) < whole.drop


def test_a_gate_that_stays_closed_writes_nothing(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    import derain.calibration.calibrate as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.gate, "_drop", lambda *_: 9.0)
        before = sorted(tmp_path.iterdir())
        result = CLI.invoke(app, ["calibrate", str(tiny_file), "--frames", str(pairs), "-o", str(tmp_path / "c.onnx")])
    assert result.exit_code == 1
    assert "int8 costs 9.000 dB" in " ".join(result.output.split())
    assert sorted(tmp_path.iterdir()) == before


def test_fp16(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "half.onnx"
    result = _calibrate(tiny_file, pairs, "-o", str(output), "--precision", "fp16", "--max-drop", "0.01")
    assert result.exit_code == 0, result.output
    card = read_card(output)
    assert card.precision.kind == "float16"
    assert card.calibration is not None
    assert "stem/Conv" in card.calibration.float16
    again = _calibrate(output, pairs, "-o", str(tmp_path / "again.onnx"))
    assert again.exit_code == 1
    assert "float16 already" in again.output


def test_without_held_out_frames_some_are_set_aside(tiny_file: Path, pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    arguments = ["calibrate", str(tiny_file), "--frames", str(pairs), "--count", "4", "-o", str(output)]
    result = CLI.invoke(app, [*arguments, "--max-drop", "3"])
    assert result.exit_code == 0, result.output
    record = read_card(output).calibration
    assert record is not None
    assert len(record.frames) == 4
    assert record.checked >= 1


def test_frames_that_are_judged_by_are_not_calibrated_with(tiny_file: Path, tmp_path: Path) -> None:
    """The same pictures under other names are known by their pixels."""
    pairs, others, output = write_pairs(tmp_path / "a", 6), write_pairs(tmp_path / "b", 3), tmp_path / "out.onnx"
    arguments = ["calibrate", str(tiny_file), "-o", str(output), "--max-drop", "3", "--check", str(others)]
    result = CLI.invoke(app, [*arguments, "--frames", str(pairs)])
    assert result.exit_code == 0, result.output
    assert "3 frames that are judged by were not calibrated with" in " ".join(result.output.split())
    record = read_card(output).calibration
    assert record is not None
    assert len(record.frames) == 3
    assert not {digest(read_image(path)) for path in (others / "rainy").iterdir()} & set(record.frames)
    output.unlink()
    result = CLI.invoke(app, [*arguments, "--frames", str(others / "rainy")])
    assert result.exit_code == 1
    assert "All 3 frames" in result.output
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "int4"], 2, "int8, fp8 or fp16"),
        (["--precision", "fp8", "--cache", "c"], 2, "--cache was given"),
        (["--max-drop", "much"], 2, "decibels"),
        (["-o", "model.trt"], 2, "ending in .onnx"),
        (["--precision", "fp16", "--cache", "c"], 2, "--cache was given"),
        (["--check", "nowhere"], 1, "does not exist"),
    ],
)
def test_mistakes(
    tiny_file: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(pairs.parent)
    before = sorted(pairs.parent.iterdir())
    result = CLI.invoke(app, ["calibrate", str(tiny_file), "--frames", str(pairs), *arguments])
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())
    assert sorted(pairs.parent.iterdir()) == before


def test_a_cache_for_a_version_without_one_stops_before_work(tmp_path: Path) -> None:
    """Neither the model nor the frames have been looked for."""
    missing = str(tmp_path / "missing.onnx")
    arguments = ["calibrate", missing, "--frames", missing, "--cache", str(tmp_path / "c"), "--cache-for", "11.1"]
    result = CLI.invoke(app, arguments)
    assert result.exit_code == 2
    assert "no calibration cache" in result.output


def test_dry_frames_are_their_own_truth(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    """Without that a frame that float32 leaves alone could be spoilt for next to nothing: its estimate is of rain."""
    model = onnx.ModelProto()
    model.CopyFrom(tiny)
    for tensor in model.graph.initializer:
        if tensor.name == "attention.bias":  # the map is zero everywhere
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(16, -500, np.float32), tensor.name))
    path, output = tmp_path / "dry.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    frames = write_pairs(tmp_path / "data", 6) / "rainy"
    arguments = ["calibrate", str(path), "--frames", str(frames), "-o", str(output), "--max-drop", "9"]
    result = CLI.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = read_card(output).calibration
    assert record is not None
    assert (record.checked, record.paired, record.dry) == (1, 0, 1)
    assert record.psnr_before is None
    frame = read_image(next(frames.glob("01.*")))
    before, after = (Runner(onnx.load(str(file)), read_card(file))(frame) for file in (path, output))
    assert record.drop == pytest.approx(psnr(before, frame, "y_matlab") - psnr(after, frame, "y_matlab"))
    assert "1 without rain" in " ".join(result.output.split())
    assert "look dry" in " ".join(result.output.split())


def test_the_help_says_what_a_split_file_is() -> None:
    assert "{folder: [names]}" in " ".join(CLI.invoke(app, ["calibrate", "--help"]).output.replace("│", " ").split())


def test_frames_of_a_wrong_size(pairs: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.onnx"
    size = (1, 32, 48)
    fixed.write_bytes(tiny_model(Profile(min=size, opt=size, max=size)).SerializeToString())
    result = _calibrate(fixed, pairs, "-o", str(tmp_path / "out.onnx"))
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "96 x 64 pixels" in text
    assert "48 x 32" in text


def test_constant_frames_are_refused(tiny_file: Path, tmp_path: Path) -> None:
    import numpy as np

    for level in (80, 99, 120):
        write_image(tmp_path / "grey" / f"{level}.png", np.full((64, 96, 3), level, np.uint8))
    result = CLI.invoke(app, ["calibrate", str(tiny_file), "--frames", str(tmp_path / "grey")])
    assert result.exit_code == 1
    assert "constant" in result.output
