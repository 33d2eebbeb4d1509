"""The template that CONTRIBUTING tells people to copy is a system that learns."""

from __future__ import annotations

import pytest
import torch

from derain.errors import DataError, UsageError
from derain.train.networks.context import thumbnail
from derain.train.systems import find_system
from derain.train.systems.base import Batch, Crops, StepContext
from derain.train.systems.template import Template, TemplateConfig


def test_the_template_learns_and_keeps_its_contract() -> None:
    torch.manual_seed(1)
    system = Template(TemplateConfig(width=8))
    optimizer = torch.optim.Adam(system.parameter_groups()["generator"], 1e-2)
    clean = torch.rand(2, 3, 32, 32) * 0.5
    rainy = clean + 0.2
    batch = Batch(Crops(rainy, thumbnail(rainy)), clean)

    def optimise(group: str, loss: torch.Tensor) -> None:
        assert group == "generator"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    context = StepContext(0, torch.Generator(), optimise)
    history = [float(system.training_step(batch, context)["generator"]) for _ in range(40)]
    assert history[0] == pytest.approx(0.2, abs=1e-3)  # it starts as the identity
    assert history[-1] < 0.5 * history[0]
    derained, attention = system.derainer(rainy)
    assert derained.shape == rainy.shape
    assert attention.shape == (2, 1, 32, 32)
    assert (derained - clean).abs().mean() < (rainy - clean).abs().mean()


def test_the_template_is_no_system_of_ours() -> None:
    with pytest.raises(UsageError, match="template"):
        find_system("template")


def test_without_pairs_it_says_what_to_give() -> None:
    system = Template(TemplateConfig())
    with pytest.raises(DataError, match="--pairs"):
        system.training_step(Batch(), StepContext(0, torch.Generator(), lambda group, loss: None))
