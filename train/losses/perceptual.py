"""Perceptual loss: distance between features of a classifier that was trained on ImageNet.

SqueezeNet 1.0 ships with derain. VGG-16, which the papers used, does not: its file is 528 MB, and the user names it.
"""

from __future__ import annotations

import pickle
import zipfile
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from derain.errors import DataError
from derain.files import check_size
from derain.train.networks.blocks import widen

_SQUEEZENET_BGR_MEANS = (104.0, 117.0, 123.0)
#: Root mean square of the tapped features over 24 photographs of BSDS500: dividing by it gives both taps the same say.
_SQUEEZENET_SCALES = {"fire3": 246.0, "fire5": 319.0}
_VGG_MEANS = (0.485, 0.456, 0.406)
_VGG_DEVIATIONS = (0.229, 0.224, 0.225)
#: torchvision's numbering of the convolutions up to conv3_3; a pooling comes before each that opens a new stage.
_VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14)
_VGG_POOL_BEFORE = (5, 10)
_VGG_TAPS = (7, 14)
_MAX_VGG_BYTES = 1 << 30


class PerceptualConfig(BaseModel):
    """Which classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Literal["squeezenet", "vgg16"] = "squeezenet"
    vgg16_file: str = Field(default="", description="torchvision's vgg16 weights (.pth), where features is vgg16")

    @model_validator(mode="after")
    def _file_where_needed(self) -> Self:
        if (self.features == "vgg16") != bool(self.vgg16_file):
            raise ValueError('vgg16_file goes with features = "vgg16", and only with it')
        return self


class PerceptualLoss(nn.Module):
    """Mean squared difference of features, averaged over the taps.

    The weights are loaded at the first use and are neither parameters nor part of a checkpoint: a checkpoint can be
    exported on a machine that has no VGG file.
    """

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self._config = config
        self._weights: dict[str, Tensor] = {}

    def __str__(self) -> str:
        if self._config.features == "vgg16":
            return f"perceptual loss: VGG-16, relu2_2 and relu3_3, from '{self._config.vgg16_file}'"
        return "perceptual loss: SqueezeNet 1.0 (shipped with derain), fire3 and fire5"

    def forward(self, picture: Tensor, reference: Tensor) -> Tensor:
        """Both (B, 3, H, W) RGB in [0, 1], 32 pixels or more; no gradient flows into ``reference``.

        Raises:
            DataError: the VGG file is missing, damaged, or of another network.
        """
        with torch.no_grad():
            wanted = self.features(reference)
        pairs = zip(self.features(picture), wanted, strict=True)
        return torch.stack([F.mse_loss(widen(a), widen(b)) for a, b in pairs]).mean()

    def features(self, picture: Tensor) -> list[Tensor]:
        """The tapped features, scaled, finest first."""
        self._load(picture.device)
        return self._vgg16(picture) if self._config.features == "vgg16" else self._squeezenet(picture)

    def _load(self, device: torch.device) -> None:
        if not self._weights:
            vgg = self._config.features == "vgg16"
            self._weights = _read_vgg16(Path(self._config.vgg16_file)) if vgg else _read_squeezenet()
        if next(iter(self._weights.values())).device != device:
            self._weights = {name: weight.to(device) for name, weight in self._weights.items()}

    def _squeezenet(self, picture: Tensor) -> list[Tensor]:
        w = self._weights

        def convolve(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
            return F.relu(F.conv2d(x, w[f"{name}/w"].to(x.dtype), w[f"{name}/b"].to(x.dtype), stride, padding))

        def fire(x: Tensor, name: str) -> Tensor:
            squeezed = convolve(x, f"{name}/conv1x1_1")
            wide = convolve(squeezed, f"{name}/conv3x3_2", padding=1)
            return torch.cat([convolve(squeezed, f"{name}/conv1x1_2"), wide], dim=1)

        bgr = picture.flip(1) * 255 - picture.new_tensor(_SQUEEZENET_BGR_MEANS)[:, None, None]
        x = F.max_pool2d(convolve(bgr, "conv1", stride=2), 3, stride=2, ceil_mode=True)
        third = fire(fire(x, "fire2"), "fire3")
        fifth = fire(F.max_pool2d(fire(third, "fire4"), 3, stride=2, ceil_mode=True), "fire5")
        return [third / _SQUEEZENET_SCALES["fire3"], fifth / _SQUEEZENET_SCALES["fire5"]]

    def _vgg16(self, picture: Tensor) -> list[Tensor]:
        x = picture - picture.new_tensor(_VGG_MEANS)[:, None, None]
        x = x / picture.new_tensor(_VGG_DEVIATIONS)[:, None, None]
        taps = []
        for layer in _VGG_LAYERS:
            if layer in _VGG_POOL_BEFORE:
                x = F.max_pool2d(x, 2)
            weight, bias = (self._weights[f"features.{layer}.{kind}"].to(x.dtype) for kind in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if layer in _VGG_TAPS:
                taps.append(x)
        return taps


def _read_squeezenet() -> dict[str, Tensor]:
    with (
        resources.files("derain.train").joinpath("perceptual").joinpath("squeezenet1_0.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        wanted = ("conv1", "fire2", "fire3", "fire4", "fire5")
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith(wanted)}


def _read_vgg16(path: Path) -> dict[str, Tensor]:
    expected = "torchvision's vgg16 weights, such as vgg16-397923af.pth"
    fix = 'Correct vgg16_file in the recipe, or use features = "squeezenet", which needs no file'
    check_size(path, _MAX_VGG_BYTES, DataError)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"'{path}' is not a readable weights file ({reason})", expected=expected, fix=fix) from error
    weights: dict[str, Tensor] = {}
    inputs = 3
    for layer in _VGG_LAYERS:
        outputs = 64 << sum(layer >= first for first in _VGG_POOL_BEFORE)
        for kind, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
            name = f"features.{layer}.{kind}"
            value = state.get(name) if isinstance(state, dict) else None
            if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                found = tuple(value.shape) if isinstance(value, Tensor) else "nothing"
                raise DataError(f"'{path}' has {found} for '{name}'", expected=f"{expected}: {shape}", fix=fix)
            weights[name] = value.float()
        inputs = outputs
    return weights
