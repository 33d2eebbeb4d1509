"""The small network, and what was exported of it, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_network import DYNAMIC, PlainNetwork, SmallNetwork

from derain.card import Profile
from derain.export.contract import Contract
from derain.export.exporter import Exported, build
from derain.export.options import ExportOptions


@pytest.fixture(scope="session")
def network() -> SmallNetwork:
    torch.manual_seed(3)
    return SmallNetwork().eval()


@pytest.fixture(scope="session")
def plain_network() -> PlainNetwork:
    torch.manual_seed(4)
    return PlainNetwork().eval()


@pytest.fixture(scope="session")
def exports(network: SmallNetwork) -> Callable[..., Exported]:
    """Build the small network with given options; each combination is built once."""
    made: dict[Any, Exported] = {}

    def get(
        frames: Any = "bgr", part: Any = "whole", size: Any = None, half: bool = False, encoding: str = "bt709-limited"
    ) -> Exported:
        key = (frames, part, size, half, encoding)
        if key not in made:
            matrix, _, colour_range = encoding.partition("-")
            contract = Contract(frames, matrix, colour_range)  # type: ignore[arg-type]
            profile = DYNAMIC if size is None else Profile(min=size, opt=size, max=size)
            made[key] = build(network, None, ExportOptions(profile, contract, half=half), part=part)
        return made[key]

    return get
