"""Alarms: the ways a deraining GAN goes wrong, each told by its own sign (SYSTEMS.md 7.1 and 7.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from derain.errors import TrainingError

_SMOOTHING = 0.99
_PATIENCE = 500
_IDENTITY = 0.02 / 255
_DRIFT = 0.2
_CHEATING_CYCLE = 0.02
_CHEATING_JUDGE = 0.01


class Alarms:
    """Watches the losses of every step and what validation sees, and stops a run that is lost.

    State is a dictionary of numbers, so that it travels in a checkpoint.
    """

    def __init__(self) -> None:
        self._smooth: dict[str, float] = {}
        self._cheating_steps = 0

    def state(self) -> dict[str, float]:
        return {**self._smooth, "cheating_steps": float(self._cheating_steps)}

    def restore(self, state: Mapping[str, float]) -> None:
        self._smooth = {name: float(value) for name, value in state.items() if name != "cheating_steps"}
        self._cheating_steps = int(state.get("cheating_steps", 0))

    def check_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Refuse a loss that is not finite, and a cycle that is satisfied by hidden signals.

        Raises:
            TrainingError: naming the loss or the alarm.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"Loss '{name}' is {value} at step {step}",
                    fix="Resume from the last checkpoint with a smaller [optimizer] learning_rate or clip",
                )
            last = self._smooth.get(name, value)
            self._smooth[name] = _SMOOTHING * last + (1 - _SMOOTHING) * value
        cycle = self._smooth.get("cycle_clean")
        judge = self._smooth.get("discriminator_rain")
        if cycle is None or judge is None:
            return
        cheating = cycle < _CHEATING_CYCLE and judge < _CHEATING_JUDGE
        self._cheating_steps = self._cheating_steps + 1 if cheating else 0
        if self._cheating_steps >= _PATIENCE:
            raise TrainingError(
                f"Cycle cheating at step {step}: the cycle loss is {cycle:.4f} while the rain discriminator has won "
                f"({judge:.4f}): the picture is carried through the cycle by a hidden signal",
                fix="Keep detach_rainy on, raise adversarial_noise, or lower [config.loss] consistency",
            )

    def check_pictures(self, step: int, change: float, drift: float) -> None:
        """Refuse a network that does nothing, or one that shifts the colours.

        Args:
            change: mean absolute difference between rainy input and output, of range 1.
            drift: largest difference between the channel means of output and ground truth, of range 1.

        Raises:
            TrainingError: naming the alarm.
        """
        if change < _IDENTITY:
            raise TrainingError(
                f"Identity collapse at step {step}: the output differs from the rainy input by {change * 255:.4f} of "
                "255 levels",
                fix="Lower the learning rate or lengthen warmup (dead units), or lower the identity weight",
            )
        if drift > _DRIFT:
            raise TrainingError(
                f"Colour drift at step {step}: a channel mean is off by {drift * 255:.0f} of 255 levels",
                fix="Raise the identity weight, or balance the scenes of the rainy and the clean folder",
            )
