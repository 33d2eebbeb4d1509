"""Machines that are not here: drivers with GPUs, TensorRTs, and builds that cost nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from standin import card_of, save_model

from derain.card import Profile
from derain.runtime.engine import store
from derain.runtime.engine.build import Built
from derain.runtime.engine.driver import Driver, Gpu
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.store import Build
from derain.runtime.engine.toolkit import Toolkit

SIZES = Profile(min=(1, 16, 16), opt=(1, 48, 64), max=(1, 96, 128))
NO_DRIVER = Driver("no_driver", detail="libcuda.so.1: cannot open")


def driver(
    name: str = "Orin",
    capability: tuple[int, int] = (8, 7),
    cuda: tuple[int, int] = (12, 6),
    version: str | None = "540.4.0",
) -> Driver:
    return Driver("ok", cuda, (Gpu(name, capability, 8 << 30, integrated=name == "Orin"),), version=version)


def toolkit(version: str = "10.3.0", name: Any = "tensorrt") -> Toolkit:
    return Toolkit(name, SimpleNamespace(), version)


class Builds:
    """Counts builds, in the place of NVIDIA's builder. ``timings`` are the caches that it was given."""

    def __init__(self) -> None:
        self.count = 0
        self.timings: list[bytes] = []
        self.error: BaseException | None = None

    def __call__(self, onnx: bytes, *_: Any, timing_cache: bytes = b"", **__: Any) -> Built:
        self.count += 1
        self.timings.append(timing_cache)
        if self.error is not None:
            raise self.error
        return Built(b"plan %d " % self.count + onnx[:32] * 4, 1.5, b"timings %d" % self.count, [])


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Builds:
    counter = Builds()
    monkeypatch.setattr(store, "build_plan", counter)
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    return counter


def model(folder: Path, **changes: Any) -> Path:
    return save_model(folder / "edge.onnx", card=card_of(profile=SIZES, **changes))


def request(path: Path, said: list[str] | None = None, **changes: Any) -> Build:
    fields: dict[str, Any] = {
        "model": path,
        "card": card_of(profile=SIZES),
        "options": BuildOptions(profile=SIZES),
        "toolkit": toolkit(),
        "driver": driver(),
        "say": (said if said is not None else []).append,
    }
    return Build(**{**fields, **changes})
