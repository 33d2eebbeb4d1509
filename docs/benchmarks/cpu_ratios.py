"""How near a model comes to its convolutions alone: CPU time of a frame against a stack of plain 3x3 convolutions.

    python docs/benchmarks/cpu_ratios.py edge --width 64 [--checkpoint last.ckpt] [--rounds 9]

One thread, 1280x720, all interleaved in one process; the stack has the model's width on its 1/4 grid and nearly its
MACs, and its time is scaled by what is missing. CPU time counts less of what else runs on the machine than wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from derain.card import read_card
from derain.models import resolve
from derain.runtime.backends import find

HEIGHT, WIDTH, GRID = 720, 1280, 4
Run = Callable[[], Any]


def model_runs(path: Path, frame: Any) -> dict[str, Run]:
    """The model by derain's own backends, frame in to picture and rain map out."""
    runs: dict[str, Run] = {}
    for name in ("onnxruntime", "openvino"):
        backend = find(name)(path, read_card(path), 1)
        backend.open()
        outputs = {"derained": np.empty_like(frame), "attention": np.empty(frame.shape[:3], np.float32)}
        runs[f"{path.stem}, {name}"] = lambda backend=backend, outputs=outputs: backend.infer({"frame": frame}, outputs)
    return runs


def stack_runs(width: int, count: int) -> dict[str, Run]:
    """``count`` 3x3 convolutions of that width on the 1/4 grid."""
    shape = (1, width, HEIGHT // GRID, WIDTH // GRID)
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(count):
        weight = random.standard_normal((width, width, 3, 3)) / np.sqrt(9 * width)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(width, np.float32), f"b{index}"))
        names = [f"t{index}", f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", names, [f"t{index + 1}"], pads=[1, 1, 1, 1]))
    ends = [helper.make_tensor_value_info(f"t{index}", TensorProto.FLOAT, shape) for index in (0, count)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    data, features = model.SerializeToString(), random.standard_normal(shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    request = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(features, shared_memory=True))
    return {"stack, onnxruntime": lambda: session.run(None, {"t0": features}), "stack, openvino": request.infer}


def eager_run(checkpoint: Path, frame: Any) -> Run:
    """The same network in PyTorch, with the same frame contract around it."""
    import torch

    from derain.export.contract import Contract
    from derain.export.graph import CameraGraph
    from derain.train.checkpoint import load_deployable

    torch.set_num_threads(1)
    graph = CameraGraph(load_deployable(checkpoint)[0].eval(), Contract()).eval()

    def run() -> None:
        with torch.inference_mode():
            graph(torch.from_numpy(frame))

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+")
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    paths = [resolve(name) for name in arguments.model]
    frame = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    kmac, each = read_card(paths[0]).cost.kmac_per_pixel, 9 * arguments.width**2 / GRID**2 / 1000
    count = round(kmac / each)
    runs = {name: run for path in paths for name, run in model_runs(path, frame).items()}
    runs |= stack_runs(arguments.width, count)
    if arguments.checkpoint:
        runs["PyTorch, eager"] = eager_run(arguments.checkpoint, frame)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 4):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            if number >= 4:  # OpenVINO compiles for the size after three frames
                times[name].append(1e3 * (time.process_time() - begun))
    for name, found in times.items():
        scale = kmac / (count * each) if name.startswith("stack") else 1.0
        print(f"{name:28} least {scale * min(found):7.1f} ms, median {scale * np.median(found):7.1f} ms")


if __name__ == "__main__":
    main()
