"""What the models are timed against: their convolutions alone, the same network in PyTorch, and PReNet.

Each is a function without arguments that computes one frame.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from derain.card import read_card
from derain.metrics import psnr, ssim
from derain.models import resolve
from derain.runtime.media.items import Picture
from derain.runtime.model import load

Run = Callable[[], Any]
GRID = 4
ENGINES = ("onnxruntime", "openvino")
RECIPES = Path(__file__).resolve().parents[1] / "models"
_STREAKS = "generator/tail/Conv"  # its input has the model's width
PRENET_WEIGHTS = Path("logs", "Rain100L", "PReNet6", "net_latest.pth")


def model_run(name: str, backend: str, threads: int, frame: Picture) -> Run:
    """A model as a user calls it: uint8 array in, derained array and rain map out."""
    model = load(name, backend, threads)
    return lambda: model(frame, attention=True)


def width_of(name: str) -> int:
    """Channels of a model on its 1/4 grid."""
    graph = onnx.load(str(resolve(name))).graph
    kernel = next(node.input[1] for node in graph.node if node.name == _STREAKS)
    return next(int(tensor.dims[1]) for tensor in graph.initializer if tensor.name == kernel)


def stack(name: str, height: int, width: int) -> tuple[bytes, NDArray[np.float32], float]:
    """A graph of plain 3x3 convolutions of a model's width on its grid, with nearly its multiplications.

    Returns:
        The graph, its input, and the model's multiplications divided by the graph's.
    """
    channels, kmac = width_of(name), read_card(resolve(name)).cost.kmac_per_pixel
    each = 9 * channels**2 / GRID**2 / 1000
    count = max(1, round(kmac / each))
    random = np.random.default_rng(0)
    shape = (1, channels, height // GRID, width // GRID)
    nodes, weights = [], []
    for index in range(count):
        weight = random.standard_normal((channels, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(channels, np.float32), f"b{index}"))
        names = [f"t{index}", f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", names, [f"t{index + 1}"], pads=[1, 1, 1, 1]))
    ends = [helper.make_tensor_value_info(f"t{index}", TensorProto.FLOAT, shape) for index in (0, count)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(), random.standard_normal(shape).astype(np.float32), kmac / (count * each)


def stack_run(data: bytes, features: NDArray[np.float32], engine: str, threads: int) -> Run:
    """Such a graph in an engine, with the settings of derain's backends."""
    if engine == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"t0": features})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(features, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


def recipe_of(name: str) -> Path:
    """The recipe of a model's last training, beside its page in docs/models."""
    return sorted((RECIPES / name).glob("*.toml"))[-1]


def eager_run(name: str, threads: int, frame: Picture) -> Run:
    """The same network in PyTorch in the same frame contract; its weights are random, which costs the same.

    Raises:
        ValueError: the recipe makes another network than the model's file holds.
    """
    import torch

    from derain.export.contract import Contract
    from derain.export.graph import CameraGraph
    from derain.train.networks.reparam import fold_branches
    from derain.train.recipe import parse_recipe
    from derain.train.systems.base import find_system

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    path = recipe_of(name)
    recipe = parse_recipe(path.read_text(encoding="utf-8"), str(path))
    network = find_system(recipe.system)(recipe.system_config()).derainer
    fold_branches(network)
    found, expected = sum(weight.numel() for weight in network.parameters()), read_card(resolve(name)).cost.parameters
    if abs(found - expected) > 0.03 * expected:  # the file also holds constants of its own
        raise ValueError(f"{path} makes a network of {found} parameters; '{name}' has {expected}")
    graph = CameraGraph(network.eval(), Contract()).eval()
    batch = torch.from_numpy(frame[None])

    def run() -> None:
        with torch.inference_mode():
            graph(batch)

    return run


def load_prenet(folder: Path) -> Any:
    """PReNet of six recurrences with the weights that its authors publish for Rain100L.

    Args:
        folder: a checkout of github.com/csdwren/PReNet.
    """
    import torch

    spec = importlib.util.spec_from_file_location("prenet_networks", folder / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its file imports torchvision, and uses nothing of it.
    missing = importlib.util.find_spec("torchvision") is None
    if missing:
        sys.modules["torchvision"] = ModuleType("torchvision")
    try:
        spec.loader.exec_module(module)
    finally:
        if missing:
            del sys.modules["torchvision"]
    network = module.PReNet(recurrent_iter=6, use_GPU=False)
    network.load_state_dict(torch.load(folder / PRENET_WEIGHTS, map_location="cpu", weights_only=True))
    return network.eval()


def prenet_derain(network: Any, frame: Picture) -> Picture:
    """uint8 (H, W, 3) BGR in and out."""
    import torch

    rgb = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        clean = network(rgb)[0].clamp(0, 1)[0]
    levels: Picture = (clean.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()[..., ::-1].copy()
    return levels


def prenet_quality(network: Any, rainy: Path, clean: Path) -> tuple[float, float, int]:
    """PSNR in dB and SSIM, protocol y_matlab, means over a folder of pictures and their ground truths; and how many."""
    from derain.images import read_image

    scores = []
    for path in sorted(rainy.iterdir()):
        derained, truth = prenet_derain(network, read_image(path)), read_image(clean / path.name)
        scores.append((psnr(derained, truth, "y_matlab"), ssim(derained, truth, "y_matlab")))
    means = np.mean(scores, axis=0)
    return float(means[0]), float(means[1]), len(scores)
