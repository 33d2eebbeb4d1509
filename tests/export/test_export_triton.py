"""The client of docs/serving.md against a server that speaks Triton's protocol and holds it to the configuration."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from small_network import run_model

from derain.export.exporter import Exported, write
from derain.export.pictures import generated_picture
from derain.export.triton import write_repository

grpc = pytest.importorskip("grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
Exports = Callable[..., Exported]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
_NUMPY = {"UINT8": np.uint8, "FP32": np.float32}


def serve(repository: Path) -> tuple[Any, int, list[str]]:
    """A server of one repository: its port, and what it was asked for."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

    asked: list[str] = []

    class Server(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            asked.append(request.model_name)
            folder = repository / request.model_name
            if not folder.is_dir():
                context.abort(grpc.StatusCode.NOT_FOUND, f"no model '{request.model_name}'")
            text = (folder / "config.pbtxt").read_text()
            config = text_format.Parse(text, model_config_pb2.ModelConfig())
            feed = {}
            for given, declared, raw in zip(request.inputs, config.input, request.raw_input_contents, strict=True):
                assert given.name == declared.name
                assert declared.data_type == model_config_pb2.DataType.Value(f"TYPE_{given.datatype}")
                batch, *sides = given.shape
                assert 1 <= batch <= config.max_batch_size
                assert all(wanted in (-1, side) for side, wanted in zip(sides, declared.dims, strict=True))
                feed[given.name] = np.frombuffer(raw, _NUMPY[given.datatype]).reshape(given.shape)
            session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"))
            names = [output.name for output in config.output]
            answer = service_pb2.ModelInferResponse(model_name=request.model_name)
            for name, values in zip(names, session.run(names, feed), strict=True):
                datatype = {np.dtype(kind): word for word, kind in _NUMPY.items()}[values.dtype]
                answer.outputs.add(name=name, datatype=datatype, shape=values.shape)
                answer.raw_output_contents.append(values.tobytes())
            return answer

    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port, asked


class Camera:
    """OpenCV's camera of three frames, and its window."""

    def __init__(self, number: int) -> None:
        self.frames = [generated_picture(seed, 64, 96) for seed in range(3)]

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)


def window(shown: list[NDArray[np.uint8]]) -> types.ModuleType:
    """In the place of OpenCV."""
    made = types.ModuleType("cv2")
    made.VideoCapture = Camera  # type: ignore[attr-defined]
    made.imshow = lambda _, picture: shown.append(picture)  # type: ignore[attr-defined]
    made.waitKey = lambda _: -1  # type: ignore[attr-defined]
    return made


def test_the_client_of_the_page(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = exports()
    write(exported, tmp_path / "m.onnx")
    place = write_repository(tmp_path / "m.onnx", tmp_path / "models")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown: list[NDArray[np.uint8]] = []
    server, port, asked = serve(tmp_path / "models")
    monkeypatch.setitem(sys.modules, "cv2", window(shown))
    try:
        exec(code.replace("localhost:8001", f"127.0.0.1:{port}").replace('"edge"', f'"{place.name}"'), {})
    finally:
        server.stop(None)
    assert asked == [place.name] * 3
    for seed, picture in enumerate(shown):
        np.testing.assert_array_equal(picture, run_model(exported, generated_picture(seed, 64, 96)[None])[0][0])
    assert len(shown) == 3
    assert "mean attention 0." in capsys.readouterr().out
