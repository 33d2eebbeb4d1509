"""A small network that has everything that makes export hard, and helpers to run what was exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from derain.card import Profile
from derain.export.exporter import Exported
from derain.train.deployable import ContextDeployable, Deployable, DeployableSpec

DYNAMIC = Profile(min=(1, 16, 16), opt=(1, 96, 128), max=(2, 256, 256))


class SmallNetwork(ContextDeployable):
    """Pixel-unshuffle stem, a stage run three times, pooled fog map, thumbnail context, pixel-shuffle tail.

    Its minimum is larger than its grid, so that padding to a minimum is exercised too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spec = DeployableSpec(
            system="small", variant="edge", multiple_of=4, minimum=16, receptive_field=64,
            tiling="needs_context", tiling_reason="a thumbnail", attention="learned", context_size=6,
        )  # fmt: skip
        self.extractor = nn.Conv2d(48, 16, 3, padding=1)
        self.stem = nn.Conv2d(48 + 16, 16, 3, padding=1)
        self.stage = nn.Conv2d(16, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, 48, 3, padding=1)
        self.thumb = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.affine = nn.Linear(16, 6)
        self.training_only = nn.Conv2d(3, 64, 7)  # stands for what must not be exported

    def frame_context(self, rainy: Tensor) -> Tensor:
        thumbnail = F.interpolate(rainy, size=(16, 16), mode="bilinear", align_corners=False)
        features = F.relu(self.thumb(thumbnail))
        return self.affine(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))

    def _attention(self, rainy: Tensor) -> Tensor:
        return F.hardsigmoid(self.extractor(F.pixel_unshuffle(rainy, 4)))

    def with_context(self, rainy: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        attention = self._attention(rainy)
        first = F.relu(self.stem(torch.cat([F.pixel_unshuffle(rainy, 4), attention], dim=1)))
        h = first
        for _ in range(3):
            h = first + F.leaky_relu(self.stage(h), 0.1)
        streaks = F.pixel_shuffle(self.tail(h), 4)
        gain, offset = context[:, :, None, None].chunk(2, dim=1)
        derained = rainy + 0.1 * (rainy * gain + offset - streaks)
        return derained.clamp(0, 1), F.pixel_shuffle(attention, 4)

    def attention_only(self, rainy: Tensor) -> Tensor:
        return F.pixel_shuffle(self._attention(rainy), 4)


class PlainNetwork(Deployable):
    """No context; tiling is sound."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = DeployableSpec(
            system="plain", variant="edge", multiple_of=2, minimum=2, receptive_field=5,
            tiling="sound", tiling_reason="convolutions", attention="removed_rain",
        )  # fmt: skip
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        derained = (rainy - 0.1 * self.conv(rainy)).clamp(0, 1)
        return derained, (rainy - derained).abs().mean(1, keepdim=True)

    def attention_only(self, rainy: Tensor) -> Tensor:
        return self(rainy)[1]


def run_model(exported: Exported, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
    """Outputs of ONNX Runtime, in order."""
    session = onnxruntime.InferenceSession(exported.model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {port.name: array for port, array in zip(exported.card.inputs, inputs, strict=True)}
    return list(session.run(None, feed))


def reference(network: Deployable, bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The contract by hand, without any of the code under test: one BGR frame (H, W, 3) to (derained, attention)."""
    height, width = bgr.shape[:2]
    step, least = network.spec.multiple_of, network.spec.minimum
    below = max(-(-height // step) * step, least) - height
    right = max(-(-width // step) * step, least) - width
    padded = np.pad(bgr, ((0, below), (0, right), (0, 0)), mode="edge")
    rgb = torch.from_numpy(padded[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        derained, attention = network(rgb)
    levels = np.rint(derained[0, :, :height, :width].numpy() * 255).astype(np.uint8)
    return levels.transpose(1, 2, 0)[..., ::-1], attention[0, 0, :height, :width].numpy()
