"""A TensorRT without a GPU that has exactly the names of one real version: any other is an AttributeError, as there.

The names come from the lists of the real bindings. What is behind them is as little as the runtime needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LISTS = Path(__file__).resolve().parents[1] / "data" / "tensorrt"
VERSIONS = {"10.3.0": "tensorrt", "10.13.3.9": "tensorrt", "11.4.0": "tensorrt", "rtx-1.7.1": "tensorrt-rtx"}
SIZES = {"frame": ((1, 16, 16, 3), (1, 48, 64, 3), (1, 96, 128, 3))}


class FakeTrt:
    """The module. ``log`` says what was done, in order; the attributes set by tests let calls fail."""

    def __init__(self, version: str) -> None:
        self._api: dict[str, list[str]] = json.loads((LISTS / f"api-{version}.json").read_text())
        self._log: list[str] = []
        self._refuses_plan = self._no_context = self._does_not_start = False
        self._refuses: set[str] = set()
        self._kernels = b"compiled for this GPU"
        self._capturable = True
        self._configs: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._api:
            raise AttributeError(f"this TensorRT has no '{name}'")
        if name == "Runtime":
            return self._new_runtime
        if name == "ILogger":
            return type("ILogger", (), {"__init__": lambda self: None})
        if name == "nptype":
            return lambda kind: {"UINT8": np.uint8, "FLOAT": np.float32}[kind]
        return SimpleNamespace(**{member: member for member in self._api[name]})

    def _listed(self, kind: str, **members: Any) -> Any:
        return _listed(kind, self._api[kind], members)

    def _new_runtime(self, logger: Any) -> Any:
        if self._does_not_start:
            logger.log(1, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def deserialise(plan: bytes) -> Any:
            self._log.append("deserialise")
            if self._refuses_plan:
                logger.log(1, "the version tag does not match")
                return None
            return self._new_engine(logger)

        return self._listed("Runtime", engine_host_code_allowed=False, deserialize_cuda_engine=deserialise)

    def _new_engine(self, logger: Any) -> Any:
        names = ["frame", "derained", "attention"]
        shapes = {"frame": (-1, -1, -1, 3), "derained": (-1, -1, -1, 3), "attention": (-1, -1, -1)}

        def new_context(*, runtime_config: Any = None) -> Any:
            self._log.append("context")
            self._configs.append(runtime_config)
            if self._no_context:
                logger.log(1, "out of memory")
                return None
            return self._new_context(logger)

        members: dict[str, Any] = {
            "num_io_tensors": len(names),
            "get_tensor_name": names.__getitem__,
            "get_tensor_mode": lambda name: "INPUT" if name == "frame" else "OUTPUT",
            "get_tensor_dtype": lambda name: "FLOAT" if name == "attention" else "UINT8",
            "get_tensor_shape": shapes.__getitem__,
            "get_tensor_profile_shape": lambda name, _: SIZES[name],
            "create_execution_context": new_context,
            "create_runtime_config": self._new_config,
        }
        return self._listed("ICudaEngine", **{k: v for k, v in members.items() if k in self._api["ICudaEngine"]})

    def _new_config(self) -> Any:
        return self._listed(
            "IRuntimeConfig",
            dynamic_shapes_kernel_specialization_strategy="LAZY",
            create_runtime_cache=self._new_cache,
            set_runtime_cache=lambda cache: self._log.append("cache set"),
        )

    def _new_cache(self) -> Any:
        def deserialise(content: bytes) -> bool:
            self._log.append(f"kernels {content!r}")
            return "kernels" not in self._refuses

        return self._listed("IRuntimeCache", deserialize=deserialise, serialize=lambda: self._kernels)

    def _new_context(self, logger: Any) -> Any:
        def answer(call: str) -> bool:
            self._log.append(call)
            if call in self._refuses:
                logger.log(1, f"{call}: refused")
            return call not in self._refuses

        members: dict[str, Any] = {
            "set_input_shape": lambda name, shape: answer("set_input_shape"),
            "get_tensor_shape": lambda name: (1, 48, 64, 3) if name == "derained" else (1, 48, 64),
            "set_tensor_address": lambda name, address: answer("set_tensor_address"),
            "execute_async_v3": lambda stream: answer("execute_async_v3"),
            "is_stream_capturable": lambda stream: self._capturable,
        }
        listed = self._api["IExecutionContext"]
        return self._listed("IExecutionContext", **{k: v for k, v in members.items() if k in listed})


def _listed(kind: str, names: list[str], members: dict[str, Any]) -> Any:
    """An object that has those members, all of which the real class has, and takes no others."""
    unknown = set(members) - set(names)
    assert not unknown, f"{kind} has no {unknown}"

    class Listed:
        def __setattr__(self, name: str, value: Any) -> None:
            if name not in names:
                raise AttributeError(f"{kind} has no '{name}'")
            object.__setattr__(self, name, value)

    Listed.__name__ = kind
    made = Listed()
    for name, value in members.items():
        setattr(made, name, value)
    return made
