"""The project's own networks: every recipe exports, and NVIDIA's builder takes it in every form."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from small_network import run_model
from torch import nn

from derain.card import Profile
from derain.export.cells import FogToCells
from derain.export.exporter import Exported, build
from derain.export.fold import repeated_weights
from derain.export.half import to_half
from derain.export.options import ExportOptions
from derain.export.pictures import generated_picture
from derain.export.scope import FLOAT_SCOPES
from derain.export.verify_trt import CAPABILITIES, build_bytes
from derain.train.deployable import CellDeployable, ContextDeployable, Deployable
from derain.train.networks.arfe import WindowSimilarity
from derain.train.recipe import parse_recipe, read_recipe_text, shipped_recipes
from derain.train.systems import find_system

TENSORRT = CAPABILITIES if importlib.util.find_spec("tensorrt_rtx") else ()
RANGE = Profile(min=(1, 64, 64), opt=(1, 720, 1280), max=(2, 1080, 1920))
FIXED = Profile(min=(1, 270, 480), opt=(1, 270, 480), max=(1, 270, 480))
# One network of each system at edge size, and the small one; the other recipes train these same networks.
EDGE = ("nano", "edge", "aueid-edge", "dcd-gan-edge", "derain-cyclegan-edge", "remaen-edge")
FULL = tuple(name for name in shipped_recipes() if name.endswith("full"))
_BYTES_BESIDE_WEIGHTS = 200_000  # nodes, their names, the card


def trained(recipe: str, **full: Any) -> tuple[nn.Module, Deployable]:
    """A recipe's whole system and what of it is deployed, with weights that do something: fresh ones are the identity.

    Args:
        full: changes of the table ``full``.
    """
    parsed = parse_recipe(read_recipe_text(recipe), recipe)
    config = parsed.system_config()
    if full:
        fields = config.model_dump(exclude_unset=True)
        config = type(config).model_validate({**fields, "full": {**fields.get("full", {}), **full}})
    torch.manual_seed(0)
    system = find_system(parsed.system)(config)
    network = system.derainer
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return system, network.eval()


def weights_of(network: Deployable) -> int:
    """How many numbers its file may hold: its own, its fixed filters, and those that spread fog over cells."""
    fixed = FogToCells((2, 1, 0)).parameters() if isinstance(network, CellDeployable) else ()
    return sum(weight.numel() for weight in (*network.parameters(), *network.buffers(), *fixed))


def convolutions(exported: Exported) -> list[str]:
    return [node.name for node in exported.model.graph.node if node.op_type == "Conv"]


def require_float16(model: Any, exported: Exported, capability: str) -> None:
    """Every convolution outside the float32 context is computed in Half, as the builder's log says."""
    found = build_bytes(model.SerializeToString(), exported.card, capability).convolutions(convolutions(exported))
    wanted = {name: "Float" if name.startswith(FLOAT_SCOPES) else "Half" for name in convolutions(exported)}
    assert found == wanted


def test_each_system_has_its_edge_size_here() -> None:
    variants = {name: parse_recipe(read_recipe_text(name), name) for name in shipped_recipes()}
    networks = {name: (recipe.system, recipe.config.get("network")) for name, recipe in variants.items()}
    assert len({networks[name][0] for name in EDGE}) == len({networks[name][0] for name in FULL}) == 5
    for name in set(variants) - set(EDGE) - set(FULL):
        assert networks[name] in [networks[other] for other in EDGE], name


@pytest.mark.parametrize("recipe", EDGE)
def test_edge_sizes_export_and_build(recipe: str) -> None:
    """Traced and compared with PyTorch once; built in float32 and float16, from which the log is read."""
    system, network = trained(recipe)
    exported = build(network, None, ExportOptions(RANGE))
    assert repeated_weights(exported.model) == []
    assert recipe != "nano" or exported.card.cost.kmac_per_pixel <= 4.0
    # Nothing of training: no weight of another network is there, and the size has no room for one.
    names = {name for name, _ in network.named_parameters()}
    stored = {
        t.name.removeprefix("network.") for t in exported.model.graph.initializer if t.name.startswith("network.")
    }
    assert stored <= names | {name for name, _ in network.named_buffers()}
    # Its own count has single numbers such as slopes of activations, which the graph holds as constants, apart.
    assert exported.card.cost.parameters <= weights_of(network)
    assert exported.card.cost.parameters > 0.98 * sum(weight.numel() for weight in network.parameters())
    bytes_ = len(exported.model.SerializeToString())
    assert bytes_ < 4 * weights_of(network) + _BYTES_BESIDE_WEIGHTS
    trained_beside = sum(weight.numel() for weight in system.parameters()) - sum(
        w.numel() for w in network.parameters()
    )
    assert trained_beside == 0 or bytes_ < 4 * sum(weight.numel() for weight in system.parameters())
    if TENSORRT:
        report = build_bytes(exported.model.SerializeToString(), exported.card, "SM86")
        assert set(report.convolutions(convolutions(exported)).values()) == {"Float"}
        require_float16(to_half(exported.model), exported, "SM86")


@pytest.mark.full
@pytest.mark.parametrize("size", [RANGE, FIXED], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("recipe", [*EDGE, *FULL])
def test_every_network_exports_and_builds(recipe: str, half: bool, size: Profile) -> None:
    """For every compute capability; that no convolution is of another type, or unknown, is part of the statement."""
    _, network = trained(recipe)
    options = ExportOptions(size, half=half, tensorrt=TENSORRT)
    card = build(network, None, options).card
    assert card.parity is not None
    # The operators of a normalization without weights have ones and zeros for them: up to 1792 numbers in DCD-GAN's.
    assert card.cost.parameters <= weights_of(network) + 2000
    if TENSORRT:
        statement = card.parity.verified_with[-1]
        assert "unknown" not in statement
        built = statement.partition("; ")[0]
        assert all(name in built for name in (TENSORRT if half else TENSORRT[1:]))
    for part in ("attention", "tile", "context"):
        if part == "attention" or isinstance(network, ContextDeployable):
            build(network, None, ExportOptions(size, half=half, tensorrt=TENSORRT[1:2]), part=part)  # type: ignore[arg-type]


@pytest.mark.full
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_the_extractor_with_a_window_exports_and_builds(half: bool) -> None:
    """ARFE's other self-similarity, which no recipe uses, on a small network: each step is 700 nodes."""
    extractor = {"attn": "cosine_window", "width": 8, "iterations": 1, "blocks": 1}
    _, network = trained("acgf-full", extractor=extractor)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, WindowSimilarity):  # features without direction: their cosine is 0, and not 0 / 0
                module.query.weight.zero_()
                module.query.bias.zero_()  # type: ignore[union-attr]
    exported = build(network, None, ExportOptions(FIXED, half=half, tensorrt=TENSORRT[1:2]))
    assert any("similarity/Softmax" in node.name for node in exported.model.graph.node)
    _, attention = run_model(exported, generated_picture(0, 270, 480)[None])
    assert np.isfinite(attention).all()
