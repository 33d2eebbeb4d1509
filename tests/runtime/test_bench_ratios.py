"""What models are timed against: convolutions alone, PyTorch, PReNet; and the table made of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from derain.card import read_card
from derain.images import write_image
from derain.models import resolve

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"

# In the place of the authors' file: the same names, one convolution that doubles the picture.
NETWORKS = """
import cv2, torch, torchvision
class PReNet(torch.nn.Module):
    def __init__(self, recurrent_iter, use_GPU):
        super().__init__()
        assert recurrent_iter == 6 and not use_GPU
        self.conv = torch.nn.Conv2d(3, 3, 1, bias=False)
    def forward(self, x):
        return self.conv(x), []
"""


@pytest.fixture
def ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    import ratios

    monkeypatch.setattr(ratios, "FILE", tmp_path / "results" / "ratios.json")
    monkeypatch.setattr(ratios, "HEIGHT", 64)
    monkeypatch.setattr(ratios, "WIDTH", 96)
    monkeypatch.setattr(ratios, "MODELS", ("nano",))
    monkeypatch.setattr("page_tables.MODELS", ("nano",))
    yield ratios
    sys.path.remove(str(FOLDER))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    weights = tmp_path / "checkout" / "logs" / "Rain100L" / "PReNet6" / "net_latest.pth"
    weights.parent.mkdir(parents=True)
    (tmp_path / "checkout" / "networks.py").write_text(NETWORKS)
    torch.save({"conv.weight": 2 * torch.eye(3).reshape(3, 3, 1, 1)}, weights)
    return tmp_path / "checkout"


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_a_stack_has_the_models_width_and_operations(ratios: Any, name: str) -> None:
    data, features, scale = ratios.stack(name, 64, 96)
    model = onnx.load_from_string(data)
    assert {node.op_type for node in model.graph.node} == {"Conv"}
    kernels = [list(t.dims) for t in model.graph.initializer if len(t.dims) == 4]
    channels = features.shape[1]
    assert kernels == [[channels, channels, 3, 3]] * len(model.graph.node)
    multiplications = sum(np.prod(kernel) for kernel in kernels) * 16 * 24
    assert scale * multiplications / (64 * 96) / 1000 == pytest.approx(read_card(resolve(name)).cost.kmac_per_pixel)
    assert 0.8 < scale < 1.25


def test_prenet_by_its_authors_file(ratios: Any, checkout: Path, tmp_path: Path) -> None:
    network = ratios.load_prenet(checkout)
    frame = np.full((5, 7, 3), (10, 100, 200), np.uint8)
    np.testing.assert_array_equal(ratios.prenet_derain(network, frame)[2, 3], [20, 200, 255])
    for folder, level in (("rainy", 50), ("clean", 100)):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.png", np.full((40, 40, 3), level, np.uint8))
    peer = ratios.quality(checkout, tmp_path, None)
    assert peer.pictures == 1
    assert peer.psnr > 60
    assert peer.ssim == pytest.approx(1)
    assert ratios.quality(checkout, None, peer) == peer, "known of the same weights"
    assert ratios.quality(checkout, None, peer.model_copy(update={"sha256": "0" * 64})) is None


def test_a_run_and_its_table(ratios: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from page_tables import ratios_text

    monkeypatch.setattr(ratios, "WARM_UP", 1)
    ratios.main(["--prenet", str(checkout), "--rounds", "3"])
    found = ratios.read_ratios()
    assert {(row.model, row.kind, len(row.samples_ms)) for row in found.rows} == {
        ("nano", "onnxruntime", 3), ("nano", "stack, onnxruntime", 3), ("nano", "openvino", 3),
        ("nano", "stack, openvino", 3), ("nano", "PyTorch, eager", 3), ("PReNet", "PyTorch, eager", 1),
    }  # fmt: skip
    text = ratios_text(found)
    ours, stack = found.find("nano", "openvino"), found.find("nano", "stack, openvino")
    assert f"| {stack.median / ours.median:.0%} |" in text
    assert re.search(r"\| nano \| [\d.]+ \| \d\d\.\d\d \| 0\.\d{4} \|", text)
    assert "only 3 frames" in text
    assert str(checkout) not in text


def test_time_ends_a_run_early(ratios: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ratios.Row(model="nano", kind="openvino", samples_ms=[])
    monkeypatch.setattr(ratios, "subjects", lambda prenet: [(row, lambda: None)])
    assert len(ratios.measure(None, 10**9, 0.02, "").rows[0].samples_ms) < 10**6


def test_another_network_than_the_models_is_refused(
    ratios: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peers

    monkeypatch.setattr(peers, "recipe_of", lambda name: real("edge"))
    real = lambda name: sorted((peers.RECIPES / name).glob("*.toml"))[-1]  # noqa: E731
    with pytest.raises(ValueError, match=r"makes a network of \d+ parameters; 'nano' has \d+"):
        peers.eager_run("nano", 1, np.zeros((64, 96, 3), np.uint8))
