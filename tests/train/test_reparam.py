"""Branched convolutions equal the one they fold to, borders included, and begin as the plain network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_recipe
from tiny_systems import scramble
from torch import nn

from derain.train.checkpoint import load_deployable, read_checkpoint
from derain.train.data.folders import Pictures
from derain.train.machine import Machine
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.networks.reparam import BranchedConv, EcbsrConv, Reparam, RepVggConv, fold_branches
from derain.train.trainer import Trainer

KINDS = (RepVggConv, EcbsrConv)
SMALL = {"extractor_width": 8, "extractor_stages": 2, "generator_width": 8, "generator_stages": 2, "fog_width": 4}


def scrambled(kind: type[BranchedConv], dtype: torch.dtype) -> BranchedConv:
    """Every branch with values of order one, biases too."""
    block = kind(6).to(dtype)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.3)
    return block


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_folding_is_exact_at_borders_too(kind: type[BranchedConv], dtype: torch.dtype, tolerance: float) -> None:
    block = scrambled(kind, dtype)
    picture = torch.randn(2, 6, 9, 7, generator=torch.Generator().manual_seed(3), dtype=dtype)
    folded = block.fold()
    assert isinstance(folded, nn.Conv2d)
    difference = (block(picture) - folded(picture)).abs()
    assert difference[:, :, 1:-1, 1:-1].max() < tolerance
    assert difference.max() < tolerance, "at the border"


@pytest.mark.parametrize("kind", KINDS)
def test_every_branch_counts(kind: type[BranchedConv]) -> None:
    block = scrambled(kind, torch.float64)
    picture = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before = block(picture)
    for name, parameter in block.named_parameters():
        with torch.no_grad():
            old = parameter.clone()
            parameter.add_(1.0)
            after = block(picture)
            assert (after - before).abs().max() > 1e-3, name
            torch.testing.assert_close(block.fold()(picture), after, atol=1e-10, rtol=0)
            parameter.copy_(old)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_its_plain_branch_and_all_branches_learn(kind: type[BranchedConv]) -> None:
    torch.manual_seed(1)
    block = kind(6)
    picture = torch.rand(1, 6, 8, 8)
    torch.testing.assert_close(block(picture), block.main(picture))
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-2)
    start = {name: parameter.detach().clone() for name, parameter in block.named_parameters()}
    for _ in range(4):
        optimizer.zero_grad()
        (block(picture) - torch.roll(picture, 1, 3)).square().mean().backward()
        optimizer.step()
    for name, parameter in block.named_parameters():
        assert not torch.equal(parameter, start[name]), f"{name} does not learn"


@pytest.mark.parametrize("reparam", ["repvgg", "ecbsr"])
def test_a_whole_derainer_folds_to_the_plain_one(reparam: Reparam) -> None:
    torch.manual_seed(1)
    network = EdgeDerainer(EdgeConfig(**SMALL, reparam=reparam)).double().eval()
    scramble(network, 0.05)
    rainy = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        before = network(rainy)
        fold_branches(network)
        after = network(rainy)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    plain = EdgeDerainer(EdgeConfig(**SMALL))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_a_checkpoint_is_folded_when_it_is_handed_out(tiny_pictures: Pictures, tmp_path: Path) -> None:
    recipe = tiny_recipe("acgf", steps=4, config={"cycle_from": 100, "network": {**SMALL, "reparam": "ecbsr"}})
    path = Trainer(recipe, tiny_pictures, tmp_path, Machine(accelerator="cpu", workers=0, threads=1)).run()
    averaged = read_checkpoint(path)["derainer"]
    assert any("squeeze" in name for name in averaged)
    derainer, _ = load_deployable(path)
    assert not any(isinstance(module, BranchedConv) for module in derainer.modules())
    unfolded = EdgeDerainer(EdgeConfig(**SMALL, reparam="ecbsr")).eval()
    unfolded.load_state_dict(averaged)
    rainy = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for one, other in zip(derainer(rainy), unfolded(rainy), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
