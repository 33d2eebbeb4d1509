"""The optimizers of a system's parameter groups: schedules, accumulated gradients, processes that share a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from derain.train.recipe import OptimizerConfig
from derain.train.systems.base import OwnRate, System


def learning_rate(config: OptimizerConfig, base: float, step: int, steps: int) -> float:
    """The rate at ``step``: linear warm-up, then held, then cosine or linear down to ``final * base``."""
    if step < config.warmup:
        return base * (step + 1) / config.warmup
    if config.schedule == "constant":
        return base
    start = max(config.warmup, int(config.hold * steps))
    done = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return base * (config.final + (1 - config.final) * shape)


def _by_rate(parameters: list[nn.Parameter], own_rates: list[OwnRate]) -> list[OwnRate]:
    """One optimizer's parameters: first those at its own rate, then those at another."""
    here = {id(parameter) for parameter in parameters}
    apart = [own for own in own_rates if all(id(parameter) in here for parameter in own.parameters)]
    elsewhere = {id(parameter) for own in apart for parameter in own.parameters}
    return [OwnRate([parameter for parameter in parameters if id(parameter) not in elsewhere], 1.0), *apart]


class Optimisers:
    """Adam for every group of a system.

    Args:
        beside_generator: parameters outside of the system that are trained with its generators.
    """

    def __init__(
        self,
        system: System,
        config: OptimizerConfig,
        fabric: Fabric,
        *,
        beside_generator: Sequence[nn.Parameter] = (),
    ) -> None:
        self._config = config
        self._fabric = fabric
        self._adams: dict[str, torch.optim.Adam] = {}
        self._base_rates: dict[str, float] = {}
        self._factors: dict[str, list[float]] = {}
        for name, parameters in system.parameter_groups().items():
            judge = name == "discriminator"
            self._base_rates[name] = config.discriminator_learning_rate if judge else config.learning_rate
            beside = beside_generator if name == "generator" else ()
            rates = _by_rate([*parameters, *beside], system.own_rates())
            betas = config.discriminator_betas if judge else config.betas
            self._factors[name] = [own.factor for own in rates]
            self._adams[name] = torch.optim.Adam(
                [{"params": own.parameters, "betas": own.betas or betas} for own in rates],
                lr=self._base_rates[name],
                weight_decay=config.weight_decay,
                fused=True,
            )

    def set_rates(self, step: int, steps: int) -> None:
        for name, adam in self._adams.items():
            rate = learning_rate(self._config, self._base_rates[name], step, steps)
            for group, factor in zip(adam.param_groups, self._factors[name], strict=True):
                group["lr"] = rate * factor

    @property
    def rates(self) -> dict[str, float]:
        return {name: adam.param_groups[0]["lr"] for name, adam in self._adams.items()}

    def optimise(self, group: str, loss: Tensor, part: int) -> None:
        """Go backward for part ``part`` of the step's ``accumulate`` batches; after the last one clip and step."""
        adam = self._adams[group]
        parts = self._config.accumulate
        if part == 0:
            adam.zero_grad(set_to_none=True)
        (loss / parts if parts > 1 else loss).backward()  # type: ignore[no-untyped-call]
        if part < parts - 1:
            return
        parameters = [p for g in adam.param_groups for p in g["params"] if p.grad is not None]
        if self._fabric.world_size > 1:
            self._average(parameters)
        nn.utils.clip_grad_norm_(parameters, self._config.clip)
        adam.step()

    def _average(self, parameters: list[nn.Parameter]) -> None:
        """Mean gradients over the processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self._fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
        assert isinstance(flat, Tensor)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def state(self) -> dict[str, Any]:
        return {name: adam.state_dict() for name, adam in self._adams.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, adam in self._adams.items():
            adam.load_state_dict(state[name])
