"""Small pictures and recipes for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scenes import scene, streaked

from derain.images import write_image
from derain.train.data.folders import Pictures, gather

TINY_RECIPE = """
name = "tiny"
system = "acgf"
seed = 3
steps = 12
validate_every = 6
checkpoint_every = 3

[optimizer]
learning_rate = 2e-3
warmup = 2

[data]
batch = 4
crop = 32
crops_per_picture = 2
pairs = 0.5
synthetic = 0.4
dry = 0.1
unpaired_batch = 2

[config]
cycle_from = 4
cycle_every = 2
crop = 32
pool = 3

[config.network]
extractor_width = 8
extractor_stages = 1
generator_width = 8
generator_stages = 1
fog_width = 4

[config.rfdr]
width = 4

[config.discriminator_clean]
widths = [4, 8]

[config.discriminator_rain]
kind = "mixed"
widths = [4, 8]
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and a busy machine loses much by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``rainy``, ``clean``, ``pairs`` (rainy/ and clean/) and a split that holds pair 0 out."""
    root = tmp_path_factory.mktemp("data")
    for i in range(4):
        clean = scene(i)
        write_image(root / "clean" / f"{i}.png", scene(100 + i))
        write_image(root / "rainy" / f"{i}.png", streaked(scene(200 + i), i))
        write_image(root / "pairs" / "clean" / f"{i}.png", clean)
        write_image(root / "pairs" / "rainy" / f"{i}.png", streaked(clean, i))
    (root / "split.json").write_text('{"about": "for tests", "pairs": ["0.png"]}')
    return root


@pytest.fixture
def tiny_pictures(tiny_folders: Path) -> Pictures:
    return gather(
        [tiny_folders / "rainy"], [tiny_folders / "clean"], [tiny_folders / "pairs"], tiny_folders / "split.json"
    )


@pytest.fixture
def tiny_recipe() -> str:
    return TINY_RECIPE
