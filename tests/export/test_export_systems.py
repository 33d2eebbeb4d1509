"""The project's own networks: every recipe exports, and NVIDIA's builder takes it in every form."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from derain.card import Profile
from derain.export.cells import FogToCells
from derain.export.exporter import ExportOptions, build
from derain.export.fold import repeated_weights
from derain.export.verify_trt import CAPABILITIES
from derain.train.deployable import ContextDeployable, Deployable
from derain.train.recipe import parse_recipe, read_recipe_text, shipped_recipes
from derain.train.systems import find_system

TENSORRT = CAPABILITIES if importlib.util.find_spec("tensorrt_rtx") else ()
RANGE = Profile(min=(1, 64, 64), opt=(1, 720, 1280), max=(2, 1080, 1920))
FIXED = Profile(min=(1, 270, 480), opt=(1, 270, 480), max=(1, 270, 480))


def deployable(recipe: str) -> Deployable:
    """A recipe's network with weights that do something: fresh ones start as the identity."""
    parsed = parse_recipe(read_recipe_text(recipe), recipe)
    torch.manual_seed(0)
    network = find_system(parsed.system)(parsed.system_config()).derainer
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return network.eval()


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_nano_exports_and_builds(half: bool) -> None:
    network = deployable("nano")
    exported = build(network, None, ExportOptions(RANGE, half=half, tensorrt=TENSORRT[1:2]))
    assert exported.card.cost.kmac_per_pixel <= 4.0
    assert repeated_weights(exported.model) == []
    weights = sum(weight.numel() for weight in network.parameters())
    fixed = sum(weight.numel() for weight in FogToCells((2, 1, 0)).parameters())
    assert weights < exported.card.cost.parameters <= weights + fixed


@pytest.mark.full
@pytest.mark.parametrize("size", [RANGE, FIXED], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_recipe_exports_and_builds(recipe: str, half: bool, size: Profile) -> None:
    network = deployable(recipe)
    card = build(network, None, ExportOptions(size, half=half, tensorrt=TENSORRT)).card
    assert card.parity is not None
    assert card.cost.parameters <= sum(weight.numel() for weight in network.parameters())
    for part in ("attention", "tile", "context"):
        if part == "attention" or isinstance(network, ContextDeployable):
            build(network, None, ExportOptions(size, half=half), part=part)  # type: ignore[arg-type]
