"""Every method and attribute of TensorRT's objects that the runtime uses exists in each version it supports."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests" / "data" / "tensorrt"
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0", "rtx-1.7.1")
BUILD, ENGINE = "runtime/engine/build.py", "runtime/backends/tensorrt_engine.py"
# What each name stands for in a file.
OBJECTS = {
    BUILD: {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
        "error": "ParserError",
    },
    ENGINE: {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "engine": "ICudaEngine",
        "_context": "IExecutionContext",
        "config": "IRuntimeConfig",
        "_compiled": "IRuntimeCache",
    },
}
# Only for TensorRT-RTX; the code asks `toolkit.ahead_of_time` first, or has a store of kernels, which is for it alone.
RTX_ONLY = {
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "ICudaEngine.create_runtime_config",
    "IExecutionContext.is_stream_capturable",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
}


def members_used(path: Path, objects: dict[str, str]) -> set[str]:
    """``Class.member`` for each ``name.member`` or ``self.name.member`` in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            inner = node.value
            name = inner.id if isinstance(inner, ast.Name) else inner.attr if isinstance(inner, ast.Attribute) else None
            if name in objects:
                found.add(f"{objects[name]}.{node.attr}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", [BUILD, ENGINE])
def test_members_exist(file: str, version: str) -> None:
    api = json.loads((LISTS / f"api-{version}.json").read_text())
    used = members_used(ROOT / file, OBJECTS[file])
    assert len(used) >= 7
    missing = {name for name in used if name.split(".")[1] not in api.get(name.split(".")[0], ())}
    allowed = RTX_ONLY if version != "rtx-1.7.1" else set()
    # Options are a model of pydantic in one function, whose `profile` and `tensor` names are its own.
    own = {
        "IOptimizationProfile.fixed",
        "IOptimizationProfile.min",
        "IOptimizationProfile.opt",
        "IOptimizationProfile.max",
    }
    own |= {"ITensor.smallest", "ITensor.largest"}
    assert missing - allowed - own == set()


def test_the_list_of_guards_is_used() -> None:
    assert members_used(ROOT / BUILD, OBJECTS[BUILD]) | members_used(ROOT / ENGINE, OBJECTS[ENGINE]) >= RTX_ONLY


def test_the_scan_would_notice(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("self._engine.get_binding_name(0)\nbuilder.max_batch_size")
    assert members_used(tmp_path / "x.py", {"_engine": "ICudaEngine", "builder": "Builder"}) == {
        "ICudaEngine.get_binding_name",
        "Builder.max_batch_size",
    }
    assert "get_binding_name" not in json.loads((LISTS / "api-10.3.0.json").read_text())["ICudaEngine"]


def test_what_tensorrt_calls_us_with_exists() -> None:
    """The three methods of a progress monitor and the one of a logger are what every version calls."""
    for version in VERSIONS:
        api = json.loads((LISTS / f"api-{version}.json").read_text())
        assert set(api["IProgressMonitor"]) == {"phase_start", "step_complete", "phase_finish"}
        assert "log" in api["ILogger"]
