"""What makes an engine the right one: the model, the build options, the TensorRT, the GPU and its driver."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from derain.card import ModelCard
from derain.runtime.engine.driver import Driver, Gpu
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.toolkit import Toolkit, version_numbers
from derain.sizes import size_text

Text = Annotated[str, Field(max_length=300)]
_AMPERE = (8, 0)


class EngineKey(BaseModel):
    """Two engines with equal keys are interchangeable. GPU and driver are None for an engine built without a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    onnx_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    precision: Literal["float32", "float16", "float8", "int8"]
    options: BuildOptions
    toolkit: Literal["tensorrt", "tensorrt-rtx"]
    toolkit_version: Text
    gpu: Text | None
    capability: tuple[int, int] | None
    cuda: tuple[int, int] | None = Field(description="newest CUDA that the driver supports")
    driver: Text | None = Field(default=None, description="version of the driver, where the system tells")


def make_key(onnx: bytes, card: ModelCard, options: BuildOptions, toolkit: Toolkit, driver: Driver) -> EngineKey:
    """The key of the engine that a build on this machine would give.

    Engines for stated compute capabilities do not depend on the machine that builds them.
    """
    gpu: Gpu | None = None if options.capabilities or not driver.gpus else driver.gpus[0]
    return EngineKey(
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        precision=card.precision.kind,
        options=options,
        toolkit=toolkit.name,
        toolkit_version=toolkit.version,
        gpu=gpu.name if gpu else None,
        capability=gpu.capability if gpu else None,
        cuda=driver.cuda if gpu else None,
        driver=driver.version if gpu else None,
    )


def machine_differences(key: EngineKey, toolkit: Toolkit, driver: Driver) -> list[str]:
    """Why an engine with that key does not belong to this machine, one sentence each; empty when it does."""
    found = []
    if key.toolkit != toolkit.name:
        found.append(f"it was built with {key.toolkit}, and {toolkit.name} is to run it")
    elif not _version_fits(key, toolkit.version):
        found.append(f"it was built with {key.toolkit} {key.toolkit_version}, and this machine has {toolkit.version}")
    gpu = driver.gpus[0] if driver.gpus else None
    if gpu is None:
        return found
    if key.options.capabilities:
        if gpu.sm not in key.options.capabilities:
            built = ", ".join(key.options.capabilities)
            found.append(f"it was built for compute capability {built}, and {gpu.name} is {gpu.sm}")
        return found
    fits_all = key.options.hardware_compatible and gpu.capability >= _AMPERE
    if not fits_all and key.gpu is not None and (key.gpu, key.capability) != (gpu.name, gpu.capability):
        built_for = f"{key.gpu} (SM{''.join(map(str, key.capability or ()))})"
        found.append(f"it was built on {built_for}, and this machine has {gpu.name} ({gpu.sm})")
    if key.options.version_compatible:
        return found
    if key.cuda is not None and driver.cuda not in (None, key.cuda):
        found.append(
            f"it was built with a driver for CUDA {_dotted(key.cuda)}, and this one is for {_dotted(driver.cuda)}"
        )
    elif key.driver is not None and driver.version not in (None, key.driver):
        found.append(f"it was built with driver {key.driver}, and this machine has {driver.version}")
    return found


def build_differences(found: EngineKey, wanted: EngineKey) -> list[str]:
    """Why an engine is not the one a model and its options call for; empty when it is."""
    reasons = []
    if found.onnx_sha256 != wanted.onnx_sha256:
        reasons.append("the model file has changed since it was built")
    if found.precision != wanted.precision:
        reasons.append(f"it computes in {found.precision}, and the model asks for {wanted.precision}")
    if found.options.profile != wanted.options.profile:
        reasons.append(f"it takes {_sizes(found.options)}, and {_sizes(wanted.options)} are asked for")
    for name in BuildOptions.model_fields:
        old, new = getattr(found.options, name), getattr(wanted.options, name)
        if name != "profile" and old != new:
            reasons.append(f"{name.replace('_', ' ')} was {_said(old)}, and is to be {_said(new)}")
    return reasons


def _said(value: object) -> str:
    """An option's value for people."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _version_fits(key: EngineKey, version: str) -> bool:
    if key.options.version_compatible:
        built, here = version_numbers(key.toolkit_version), version_numbers(version)
        return built[:1] == here[:1] and built <= here
    return key.toolkit_version == version


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version or ()))


def _sizes(options: BuildOptions) -> str:
    profile = options.profile
    if profile.fixed:
        return f"frames of {size_text(profile.opt)}"
    return f"frames from {size_text(profile.min)} to {size_text(profile.max)}, tuned for {size_text(profile.opt)}"
