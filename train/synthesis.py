"""Paired sets made from clean pictures: what ``derain synth`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from derain.errors import DataError
from derain.files import atomic_path, file_sha256
from derain.images import list_images, read_image, write_image
from derain.train.rain.degradation import Synthesiser

MANIFEST = "manifest.json"


def write_pairs(
    clean: Path,
    out: Path,
    rain: Synthesiser,
    renderer: dict[str, Any],
    *,
    seed: int,
    per_picture: int,
    progress: Callable[[], None],
) -> Path:
    """Rain on every picture of a folder and write ``rainy/``, ``clean/`` and a manifest into ``out``.

    Each picture draws from (seed, its place in the folder, which rain), so a set can be made again exactly and one more
    picture at the end changes none of the others.

    Args:
        renderer: its name and settings, for the manifest.
        per_picture: rains on each picture, all different.

    Returns:
        The manifest: for each pair its names, the SHA-256 of the clean file, its draw, and the kind of rain drawn.

    Raises:
        DataError: ``out`` holds a set already.
    """
    manifest = out / MANIFEST
    if manifest.exists():
        raise DataError(f"'{out}' holds a set already", fix="Choose another folder, or remove that one")
    entries = []
    for index, path in enumerate(list_images(clean)):
        picture = np.ascontiguousarray(read_image(path)[:, :, ::-1], dtype=np.float32) / 255.0
        for take in range(per_picture):
            name = f"{path.stem}.png" if per_picture == 1 else f"{path.stem}_{take}.png"
            sample = rain(picture, np.random.default_rng([seed, index, take]))
            for folder, pixels in (("rainy", sample.rainy), ("clean", sample.clean)):
                levels = np.clip(np.rint(pixels * 255.0), 0, 255).astype(np.uint8)
                write_image(out / folder / name, np.ascontiguousarray(levels[:, :, ::-1]))
            source = {"source": path.name, "sha256": file_sha256(path)}
            entries.append({"name": name, **source, "draw": [seed, index, take], "rain": sample.regime})
            progress()
    with atomic_path(manifest) as temporary:
        temporary.write_text(json.dumps({"renderer": renderer, "seed": seed, "pairs": entries}, indent=1) + "\n")
    return manifest
