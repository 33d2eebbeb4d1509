"""Distillation: a trained network of any system guides a smaller one (SYSTEMS.md 7.5).

The student learns what its recipe's system teaches it and, besides, to agree with the teacher on the crops it sees.
The teacher is frozen and stays out of the student's checkpoint, which keeps the SHA-256 of the teacher's file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derain.errors import UsageError
from derain.files import file_sha256
from derain.train import losses
from derain.train.checkpoint import load_deployable
from derain.train.deployable import Deployable
from derain.train.networks.edge import EdgeDerainer
from derain.train.recipe import DistilConfig
from derain.train.systems.base import Batch, Crops, Losses


class Distiller:
    """L1 between student and teacher, on their pictures and, if wanted, on their attention.

    Raises:
        CheckpointError: the teacher's file cannot be used.
        UsageError: the crop does not fit the teacher's grid, or one of the two has no learned attention to compare.
    """

    def __init__(self, config: DistilConfig, student: Deployable, crop: int, device: torch.device) -> None:
        self.config = config
        self.teacher, info = load_deployable(config.checkpoint)
        self.sha256 = file_sha256(config.checkpoint)
        self.name = info.name
        self.teacher.to(device=device, dtype=next(student.parameters()).dtype).requires_grad_(False)
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

    def losses(self, student: Deployable, batch: Batch) -> Losses:
        """By name: ``distil``, and ``distil_attention`` where it has a weight. Differentiable in the student."""
        crops = batch.paired or batch.rainy
        assert crops is not None, "a step without rainy pictures"
        with torch.no_grad():
            goal, goal_attention = predict(self.teacher, crops)
            goal = goal.clamp(0.0, 1.0)
        derained, attention = predict(student, crops)
        terms = {"distil": self.config.weight * losses.l1(derained, goal)}
        if self.config.attention:
            terms["distil_attention"] = self.config.attention * losses.l1(attention, goal_attention)
        return terms


def predict(derainer: Deployable, crops: Crops) -> tuple[Tensor, Tensor]:
    """Derained crops and their attention.

    An edge network gets the context of the whole pictures that the crops were cut from, and its output is not
    clamped: gradients must not die at 0 and 1.
    """
    if isinstance(derainer, EdgeDerainer):
        return derainer.raw(crops.picture, derainer.context(crops.thumb))
    derained, attention = derainer(crops.picture)
    return derained, attention
