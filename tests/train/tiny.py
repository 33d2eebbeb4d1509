"""A recipe for every registered system that trains in a second: what the tests of the trainer share."""

from __future__ import annotations

import json
from typing import Any

from tiny_systems import TINY

_JUDGE = {"kind": "multiscale", "widths": [4, 8]}

CONFIGS: dict[str, dict[str, Any]] = {
    "acgf": {**TINY["acgf edge"][1], "cycle_from": 2, "cycle_every": 2},
    "aueid": {**TINY["aueid edge"][1], "cycle_from": 2, "cycle_every": 2},
    "derain-cyclegan": {
        "crop": 32,
        "pool": 3,
        "discriminator": _JUDGE,
        "network": {"extractor_width": 8, "extractor_stages": 1, "generator_width": 8, "generator_stages": 1},
    },
    "dcd-gan": {
        "network": {"width": 8, "stages": 1, "discriminator_width": 8},
        "patches": 16,
        "projection": 8,
    },
    "remaen": {"network": {"width": 8, "stages": 1}},
}
"""The ``[config]`` table by system."""

_SHARED: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "steps": 10,
    "validate_every": 5,
    "checkpoint_every": 2,
    "optimizer": {"learning_rate": 2e-3, "warmup": 2},
    "data": {
        "batch": 4,
        "crop": 32,
        "crops_per_picture": 2,
        "pairs": 0.5,
        "synthetic": 0.4,
        "dry": 0.1,
        "unpaired_batch": 4,
        "synthetic_pixels": 16384,
    },
}


def tiny_recipe(system: str, **changes: Any) -> str:
    """A recipe's TOML text; a change is a top-level key, a dictionary is merged into its table."""
    document = {**_SHARED, "system": system, "config": CONFIGS[system]}
    for key, value in changes.items():
        old = document.get(key)
        document[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return to_toml(document)


def to_toml(document: dict[str, Any], prefix: str = "") -> str:
    """Numbers, strings, lists of them, and tables within tables."""
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in document.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", to_toml(value, f"{prefix}{key}.")]
    return "\n".join(lines)
