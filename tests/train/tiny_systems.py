"""Every system at tiny width, and one hand-held training step: what the tests of systems share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from derain.train.checkpoint import save_checkpoint
from derain.train.networks.context import thumbnail
from derain.train.systems import System, find_system
from derain.train.systems.base import Batch, Crops, Losses, StepContext

CROP = 32

_EDGE = {
    "extractor_width": 8,
    "extractor_stages": 1,
    "generator_width": 8,
    "generator_stages": 1,
    "fog_width": 4,
}
_JUDGE = {"widths": [4, 8]}
_CYCLE: dict[str, Any] = {
    "rfdr": {"width": 4},
    "discriminator_clean": _JUDGE,
    "discriminator_rain": _JUDGE,
    "crop": CROP,
    "pool": 3,
}
_ARFE = {"width": 4, "iterations": 2, "blocks": 1}
_UNPAIRED = {"supervised": 0, "supervised_gradient": 0, "supervised_attention": 0}


def _full(extractor: dict[str, Any] | None = None, **generator: Any) -> dict[str, Any]:
    networks = {"extractor": {**_ARFE, **(extractor or {})}, "generator": {"width": 4, **generator}}
    return {**_CYCLE, "variant": "full", "full": networks}


TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "acgf edge": ("acgf", {**_CYCLE, "network": _EDGE, "discriminator_rain": {**_JUDGE, "kind": "mixed"}}),
    "acgf full": (
        "acgf",
        {
            **_full(attention="parallel"),
            "discriminator_clean": {**_JUDGE, "kind": "multiscale"},
            "loss": {**_UNPAIRED, "clean_attention": 0, "consistency_ssim": 1, "perceptual": 0.01},
        },
    ),
    "acgf full guide": (
        "acgf",
        {
            **_full({"attn": "cosine_window"}, attention="guide"),
            "discriminator_rain": {**_JUDGE, "kind": "mixed_ac"},
        },
    ),
    "aueid edge": ("aueid", {**_CYCLE, "network": _EDGE}),
    "aueid full": ("aueid", _full()),
    "derain-cyclegan edge": (
        "derain-cyclegan",
        {
            "network": {"extractor_width": 4, "extractor_stages": 1, "generator_width": 8, "generator_stages": 1},
            "discriminator": {**_JUDGE, "kind": "multiscale"},
            "crop": CROP,
            "pool": 3,
        },
    ),
    "derain-cyclegan full": (
        "derain-cyclegan",
        {
            "variant": "full",
            "full": {"extractor_width": 4, "extractor_iterations": 2, "extractor_blocks": 1, "generator_width": 4},
            "discriminator": {**_JUDGE, "kind": "multiscale"},
            "crop": CROP,
            "pool": 3,
        },
    ),
    "dcd-gan edge": (
        "dcd-gan",
        {"network": {"width": 8, "stages": 1, "discriminator_width": 4}, "patches": 16, "projection": 8},
    ),
    "dcd-gan full": (
        "dcd-gan",
        {
            "variant": "full",
            "full": {"width": 4, "blocks": 1, "discriminator_width": 4},
            "patches": 16,
            "projection": 8,
        },
    ),
    "remaen edge": ("remaen", {"network": {"width": 4, "stages": 2}}),
    "remaen full": ("remaen", {"variant": "full", "full": {"width": 4, "stages": 2}}),
}
"""By a name for people: the system and its ``[config]`` table."""


def build(name: str, *, seed: int = 1) -> System:
    """A tiny system with seeded weights."""
    system, table = TINY[name]
    torch.manual_seed(seed)
    kind = find_system(system)
    return kind(kind.Config.model_validate(table))


def pictures(count: int, seed: int, side: int = CROP) -> Tensor:
    """Smooth pictures, float32 (count, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1) * 0.7


def rain_on(clean: Tensor, seed: int) -> Tensor:
    """Bright vertical streaks."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.rand(len(clean), 1, 1, clean.shape[3], generator=generator) > 0.85
    return (clean + 0.3 * columns).clamp(0, 1)


def crops(picture: Tensor) -> Crops:
    return Crops(picture, thumbnail(picture))


def batch(system: System, step: int = 0, count: int = 2) -> Batch:
    """What the step needs, always the same pictures."""
    needs = system.needs(step)
    made = Batch()
    if needs.pairs:
        made.truth = pictures(count, 1)
        made.paired = crops(rain_on(made.truth, 2))
        made.labels = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]).repeat(-(-count // 2), 1)[:count]
    if needs.unpaired:
        made.rainy = crops(rain_on(pictures(count, 3), 4))
        made.clean = crops(pictures(count, 5))
    return made


class Steps:
    """Trains a system step by step, with Adam for every group, as the trainer does.

    Attributes:
        norms: after a step, the largest gradient of each parameter that its group's ``optimise`` saw, by id.
    """

    def __init__(self, system: System, rate: float = 1e-3) -> None:
        self.system = system
        self.count = 0
        self.norms: dict[int, float] = {}
        self.order: list[str] = []
        self._optimizers = {
            name: torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.99))
            for name, parameters in system.parameter_groups().items()
        }

    def step(self, given: Batch | None = None) -> Losses:
        generator = torch.Generator().manual_seed(self.count)
        given = batch(self.system, self.count) if given is None else given
        losses = self.system.training_step(given, StepContext(self.count, generator, self._optimise))
        self.count += 1
        return losses

    def _optimise(self, group: str, loss: Tensor) -> None:
        optimizer = self._optimizers[group]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.order.append(group)
        for name, others in self.system.parameter_groups().items():
            for parameter in others:
                if name == group and parameter.grad is not None:
                    largest = float(parameter.grad.abs().max())
                    self.norms[id(parameter)] = max(self.norms.get(id(parameter), 0.0), largest)
        optimizer.step()


def scramble(module: torch.nn.Module, scale: float = 0.15) -> None:
    """Give every weight a value, those that start at zero too, so that no branch is hidden."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def save(system: System, name: str, path: Path) -> Path:
    """A checkpoint of the system, which is one of the table, as a run of one step would leave it."""
    text = f'name = "tiny"\nsystem = "{TINY[name][0]}"\nsteps = 1\n[config]\n' + _toml(TINY[name][1])
    weights = {"system": system.state_dict(), "derainer": system.derainer.state_dict(), "optimizers": {}, "alarms": {}}
    save_checkpoint(path, {"recipe": text, "step": 1, "minutes": 0.5, "data": [], "quality": [], **weights})
    return path


def _toml(table: dict[str, Any], prefix: str = "") -> str:
    """A table as dotted TOML keys."""
    lines = []
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(_toml(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {value!r}".replace("'", '"'))
    return "\n".join(lines)
