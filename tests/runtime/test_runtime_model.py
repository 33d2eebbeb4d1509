from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from standin import Form, card_of, expected, save_model

import derain
from derain.card import CARD_KEY, Geometry, Profile, read_card
from derain.errors import BackendError, FrameError, ModelFileError, UsageError
from derain.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from derain.runtime.model import Model


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


@pytest.fixture
def frame() -> Any:
    return np.random.default_rng(1).integers(0, 256, (41, 30, 3), np.uint8)


def assert_close(found: Any, wanted: Any) -> None:
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("form", ["uint8", "uint8_rgb", "float"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_port_form_gives_the_same_picture(tmp_path: Path, form: Form, backend: str, frame: Any) -> None:
    with derain.load(save_model(tmp_path / "m.onnx", form), backend) as model:
        assert model.backend_name == backend
        assert model.backend_reason == "asked for"
        clean, rain = model(frame, attention=True)
    assert_close(clean, expected(frame))
    assert rain.dtype == np.float32
    assert rain.shape == frame.shape[:2]
    np.testing.assert_allclose(rain, expected(frame).mean(axis=2) / 255, atol=0.003)


@pytest.mark.parametrize("form", ["uint8", "float"])
def test_input_is_never_changed_and_results_are_fresh(tmp_path: Path, form: Form, frame: Any) -> None:
    kept = frame.copy()
    with derain.load(save_model(tmp_path / "m.onnx", form)) as model:
        first, rain_first = model(frame, attention=True)
        first_copy, rain_copy = first.copy(), rain_first.copy()
        second, _ = model(255 - frame, attention=True)
        model(frame[::2])
    np.testing.assert_array_equal(frame, kept)
    np.testing.assert_array_equal(first, first_copy)
    np.testing.assert_array_equal(rain_first, rain_copy)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("view", ["strided", "mirrored", "read_only", "transposed", "pixel", "odd"])
def test_any_memory_layout_and_size(standin: Path, frame: Any, view: str) -> None:
    shaped = {
        "strided": frame[::2, ::3],
        "mirrored": frame[:, ::-1],
        "read_only": frame,
        "transposed": frame.transpose(1, 0, 2),
        "pixel": frame[:1, :1],
        "odd": frame[:7, :5],
    }[view]
    if view == "read_only":
        shaped.flags.writeable = False
    with derain.load(standin) as model:
        assert_close(model(shaped), expected(shaped))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"shape \(8, 8\).*COLOR_GRAY2BGR"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\).*alpha"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one frame at a time"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.float32), "dtype float32.*0..255"),
        (np.zeros((8, 8, 3), np.uint16), "dtype uint16"),
        ([[1, 2, 3]], "is a list"),
        (None, "is a NoneType"),
    ],
)
def test_frames_that_are_none(standin: Path, bad: Any, message: str) -> None:
    with derain.load(standin) as model, pytest.raises(FrameError, match=message):
        model(bad)


def test_minimum_and_fixed_sizes(tmp_path: Path, frame: Any) -> None:
    geometry = Geometry(multiple_of=8, minimum=16, receptive_field=None, tiling="unsound", tiling_reason="whole frame")
    path = save_model(tmp_path / "minimum.onnx", card=card_of(geometry=geometry))
    with derain.load(path) as model:
        with pytest.raises(FrameError, match=r"1 x 1 pixels.*at least 16 x 16"):
            model(frame[:1, :1])
        model(frame)
    fixed = card_of(profile=Profile(min=(1, 24, 32), opt=(1, 24, 32), max=(1, 24, 32)))
    with derain.load(save_model(tmp_path / "fixed.onnx", card=fixed)) as model:
        assert model(np.zeros((24, 32, 3), np.uint8)).shape == (24, 32, 3)
        with pytest.raises(FrameError, match=r"30 x 41 pixels.*height 24.*Resize"):
            model(frame)


def test_out(standin: Path, frame: Any) -> None:
    with derain.load(standin) as model:
        out = np.zeros_like(frame)
        assert model(frame, out=out) is out
        assert_close(out, expected(frame))
        for bad in (frame, np.zeros((3, 3, 3), np.uint8), np.zeros(frame.shape, np.float32), out[::-1], "text"):
            with pytest.raises(FrameError, match="out"):
                model(frame, out=bad)


def test_several_threads_share_a_model(standin: Path) -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (9 + i % 3, 11, 3), np.uint8) for i in range(6)]
    right: list[int] = []
    with derain.load(standin) as model:

        def work(i: int) -> None:
            for _ in range(20):
                assert_close(model(frames[i]), expected(frames[i]))
            right.append(i)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(right) == list(range(6))


def test_closed_model(standin: Path, frame: Any) -> None:
    model = derain.load(standin)
    assert isinstance(model, Model)
    model.close()
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model(frame)


def _without_card(path: Path) -> None:
    proto = onnx.load(str(path))
    del proto.metadata_props[:]
    onnx.save(proto, str(path))


def _newer_card(path: Path) -> None:
    proto = onnx.load(str(path))
    card = json.loads(proto.metadata_props[0].value)
    proto.metadata_props[0].value = json.dumps({**card, "schema_version": 99})
    assert proto.metadata_props[0].key == CARD_KEY
    onnx.save(proto, str(path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), r"standin\.onnx.*0 bytes"),
        (lambda path: path.write_bytes(b"not a model at all"), r"standin\.onnx"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), r"standin\.onnx"),
        (_without_card, "without a derain model card"),
        (_newer_card, "schema version 99.*newer"),
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    ],
)
def test_model_files_that_are_none(standin: Path, damage: Any, message: str) -> None:
    damage(standin)
    with pytest.raises(ModelFileError, match=message):
        derain.load(standin)


def test_parts_are_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "part.onnx", card=card_of(part="attention"))
    with pytest.raises(ModelFileError, match=r"'attention' part.*whole"):
        derain.load(path)
    outputs = card_of().outputs[:1]
    with pytest.raises(ModelFileError, match="0 attention ports"):
        derain.load(save_model(tmp_path / "one.onnx", card=card_of(outputs=outputs)))


def test_unknown_names(standin: Path) -> None:
    with pytest.raises(ModelFileError, match="no model named 'nosuchmodel'"):
        derain.load("nosuchmodel")
    with pytest.raises(UsageError, match="no backend 'abacus'"):
        derain.load(standin, backend="abacus")


def test_calls_side_by_side_are_over_before_a_model_closes(tmp_path: Path) -> None:
    """Two threads meet in the backend, a third closes: the backend stays open until both have their picture."""
    met, go_on, events = threading.Barrier(3), threading.Event(), []
    one_binding = threading.Lock()  # has the class that stands in here, which promises no more

    class SideBySide(OnnxRuntimeCpu):
        context_per_thread = True

        def _infer_impl(self, inputs: Any, outputs: Any) -> None:
            met.wait(30)
            assert go_on.wait(30)
            with one_binding:
                super()._infer_impl(inputs, outputs)
            events.append("inferred")

        def _close_impl(self) -> None:
            events.append("closed")
            super()._close_impl()

    path = save_model(tmp_path / "m.onnx")
    model = Model(SideBySide(path, read_card(path), 1), "the test's choice")
    picture = np.full((24, 32, 3), 90, np.uint8)
    calls = [threading.Thread(target=model, args=(picture,)) for _ in range(2)]
    for call in calls:
        call.start()
    met.wait(30)
    closing = threading.Thread(target=model.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    for thread in (*calls, closing):
        thread.join(30)
    assert events == ["inferred", "inferred", "closed"]
    with pytest.raises(BackendError, match="closed"):
        model(picture)
