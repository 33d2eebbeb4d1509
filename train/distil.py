"""Distillation: a trained network of any system guides a smaller one (SYSTEMS.md 7.5).

The student learns what its recipe's system teaches it and, besides, to agree with the teacher on the crops it sees: on
the picture, on the attention, or on features within. The teacher is frozen and stays out of the student's checkpoint,
which keeps the SHA-256 of the teacher's file.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import UsageError
from derain.files import file_sha256
from derain.train import losses
from derain.train.checkpoint import load_deployable, load_weights
from derain.train.deployable import Deployable
from derain.train.networks.blocks import widen
from derain.train.networks.context import THUMBNAIL_CHANNELS, THUMBNAIL_SIDE
from derain.train.networks.edge import EdgeDerainer
from derain.train.recipe import DistilConfig
from derain.train.systems.base import Batch, Crops, Losses


class Distiller:
    """L1 between student and teacher, on their pictures and, if wanted, on their attention and features.

    Raises:
        CheckpointError: the teacher's file cannot be used.
        UsageError: the crop does not fit the teacher's grid, one of the two has no learned attention to compare, or
            a layer named for its features does not exist or has none.
    """

    def __init__(self, config: DistilConfig, student: Deployable, crop: int, device: torch.device) -> None:
        self.config = config
        self.teacher, info = load_deployable(config.checkpoint)
        self.sha256 = file_sha256(config.checkpoint)
        self.name = info.name
        dtype = next(student.parameters()).dtype
        self.teacher.to(device=device, dtype=dtype).requires_grad_(False)
        if crop % self.teacher.spec.multiple_of:
            raise UsageError(
                f"Crops of {crop} pixels do not fit the teacher '{info.name}'",
                expected=f"a [data] crop that is a multiple of {self.teacher.spec.multiple_of}",
            )
        if config.attention and "removed_rain" in (student.spec.attention, self.teacher.spec.attention):
            raise UsageError(
                "[distil] attention compares learned attention maps, and student or teacher has none",
                fix="Leave [distil] attention out",
            )
        self._features = None
        if config.features:
            self._features = FeatureGuide(student, self.teacher, config, crop).to(device=device, dtype=dtype)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained together with the student's generator, and left behind with the teacher."""
        return [] if self._features is None else list(self._features.parameters())

    def state(self) -> dict[str, Tensor]:
        return {} if self._features is None else self._features.state_dict()

    def restore(self, state: dict[str, Any], origin: str) -> None:
        if self._features is not None:
            load_weights(self._features, state, origin)

    def losses(self, student: Deployable, batch: Batch) -> Losses:
        """By name: ``distil``, and ``distil_attention`` and ``distil_features`` where they have a weight."""
        crops = batch.paired or batch.rainy
        assert crops is not None, "a step without rainy pictures"
        with torch.no_grad():
            goal, goal_attention = predict(self.teacher, crops)
            goal = goal.clamp(0.0, 1.0)
        derained, attention = predict(student, crops)
        terms = {"distil": self.config.weight * losses.l1(derained, goal)}
        if self.config.attention:
            terms["distil_attention"] = self.config.attention * losses.l1(attention, goal_attention)
        if self._features is not None:
            terms["distil_features"] = self.config.features * self._features()
        return terms


class FeatureGuide(nn.Module):
    """Squared difference between features of the student and of the teacher, relative to the teacher's energy.

    A 1x1 projection, trained beside the student, brings the student's channels to the teacher's. The finer of the two
    is averaged down to the coarser, so that a network on a grid can learn from one at full resolution.
    """

    def __init__(self, student: Deployable, teacher: Deployable, config: DistilConfig, crop: int) -> None:
        super().__init__()
        self._seen: dict[str, Tensor] = {}
        for role, network, layer in (
            ("student", student, config.student_layer),
            ("teacher", teacher, config.teacher_layer),
        ):
            _layer(network, layer, f"{role}_layer").register_forward_hook(
                lambda _, __, output, role=role: self._seen.__setitem__(role, output)
            )
        parameter = next(student.parameters())
        blank = Crops(
            parameter.new_zeros(1, 3, crop, crop),
            parameter.new_zeros(1, THUMBNAIL_CHANNELS, THUMBNAIL_SIDE, THUMBNAIL_SIDE),
        )
        with torch.no_grad():
            for network in (student, teacher):
                predict(network, blank)
        channels = {}
        for role, layer in (("student", config.student_layer), ("teacher", config.teacher_layer)):
            seen = self._seen.pop(role, None)
            if not isinstance(seen, Tensor) or seen.ndim != 4:
                raise UsageError(
                    f"[distil] {role}_layer '{layer}' has no features to compare",
                    expected="a layer that runs when the network derains and puts out one tensor (B, C, H, W)",
                )
            channels[role] = seen.shape[1]
        self.project = nn.Conv2d(channels["student"], channels["teacher"], 1)

    def forward(self) -> Tensor:
        """The loss on what both layers put out last; 1 means that the student explains nothing."""
        goal = widen(self._seen.pop("teacher"))
        own = widen(self.project(self._seen.pop("student")))
        size = (min(own.shape[2], goal.shape[2]), min(own.shape[3], goal.shape[3]))
        own, goal = (F.adaptive_avg_pool2d(features, size) for features in (own, goal))
        return F.mse_loss(own, goal) / goal.square().mean().clamp(min=1e-12)


def _layer(network: Deployable, name: str, key: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(network.named_modules())
    if not name or name not in layers:
        known = ", ".join(layer for layer in layers if layer.count(".") == 1)
        raise UsageError(f"[distil] {key} '{name}' is no layer of that network", expected=f"such as {known}")
    return layers[name]


def predict(derainer: Deployable, crops: Crops) -> tuple[Tensor, Tensor]:
    """Derained crops and their attention.

    An edge network gets the context of the whole pictures that the crops were cut from, and its output is not
    clamped: gradients must not die at 0 and 1.
    """
    if isinstance(derainer, EdgeDerainer):
        return derainer.raw(crops.picture, derainer.context(crops.thumb))
    derained, attention = derainer(crops.picture)
    return derained, attention
