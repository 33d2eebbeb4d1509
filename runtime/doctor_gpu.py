"""Probes of ``derain doctor`` for the GPU: driver, CUDA, TensorRT, trtexec, and a Jetson's own things."""

from __future__ import annotations

import re
from typing import Any

from derain.runtime.doctor_system import Answer, Finding, System, is_absent, module_facts
from derain.runtime.engine.driver import Driver, Gpu
from derain.runtime.engine.toolkit import OLDEST, version_numbers

_DRIVER_CODE = (
    "import json, dataclasses; from derain.runtime.engine.driver import probe_driver; "
    "print(json.dumps(dataclasses.asdict(probe_driver())))"
)
_CUDA_CODE = (
    "import json; from cuda.bindings import runtime; status, number = runtime.cudaRuntimeGetVersion(); "
    "import cuda.bindings; print(json.dumps({'version': cuda.bindings.__version__, 'runtime': number}))"
)
_JETPACK_HINT = "sudo apt install nvidia-jetpack"


def ask_driver_elsewhere(system: System) -> tuple[Driver, Answer]:
    """The driver as a child process sees it; one that crashes the child counts as broken."""
    answer = system.python(_DRIVER_CODE)
    found = answer.value
    if not isinstance(found, dict):
        return Driver("broken", detail=answer.problem), answer
    gpus = tuple(
        Gpu(gpu["name"], (gpu["capability"][0], gpu["capability"][1]), gpu["memory_bytes"], gpu["integrated"])
        for gpu in found["gpus"]
    )
    cuda = (found["cuda"][0], found["cuda"][1]) if found["cuda"] else None
    return Driver(found["state"], cuda, gpus, found["detail"], found["version"]), answer


def probe_gpu(system: System) -> Finding:
    """Driver and GPUs."""
    driver, _ = ask_driver_elsewhere(system)
    facts: dict[str, Any] = {
        "state": driver.state,
        "driver": driver.version,
        "cuda": driver.cuda,
        "gpus": [{"name": gpu.name, "sm": gpu.sm, "memory_bytes": gpu.memory_bytes} for gpu in driver.gpus],
    }
    if driver.usable and driver.cuda:
        names = ", ".join(f"{gpu.name} ({gpu.sm}, {gpu.memory_bytes / 2**30:.1f} GiB)" for gpu in driver.gpus)
        detail = f"{names}; driver {driver.version or 'of unknown version'}, for CUDA up to {_dotted(driver.cuda)}"
        return Finding("GPU", "ok", detail, facts=facts)
    if driver.state == "no_driver" and not driver.detail:
        fix = (
            "Only for GPUs: install NVIDIA's driver; on a Jetson flash JetPack; in a container start it with --gpus all"
        )
        return Finding("GPU", "missing", "no NVIDIA driver (libcuda.so.1 is not here)", fix, facts)
    detail = driver.problem
    fix = "See nvidia-smi; after a driver update restart the machine"
    if driver.state == "no_device" and system.environment("CUDA_VISIBLE_DEVICES") is not None:
        fix = f"CUDA_VISIBLE_DEVICES is '{system.environment('CUDA_VISIBLE_DEVICES')}': it may hide the GPU"
    return Finding("GPU", "broken", detail, fix, facts)


def probe_cuda(system: System) -> Finding:
    """The CUDA layer, and whether the driver is new enough for it."""
    answer = system.python(_CUDA_CODE)
    if not isinstance(answer.value, dict):
        if "No module named 'cuda" in answer.problem:
            fix = 'To run engines: pip install "derain[tensorrt]"'
            return Finding("CUDA for Python", "missing", "cuda-bindings is not installed", fix)
        return Finding("CUDA for Python", "broken", f"cuda-bindings does not import: {answer.problem}")
    number = int(answer.value["runtime"])
    runtime = (number // 1000, number % 1000 // 10)
    text = f"cuda-bindings {answer.value['version']}, CUDA {runtime[0]}.{runtime[1]}"
    driver, _ = ask_driver_elsewhere(system)
    too_old = driver.too_old_for(runtime)
    if too_old is not None and driver.cuda is not None:
        fix = f'Update the driver, or run: pip install "cuda-bindings>={driver.cuda[0]},<{driver.cuda[0] + 1}"'
        return Finding("CUDA for Python", "broken", f"{text}: {too_old}", fix, answer.value)
    return Finding("CUDA for Python", "ok", text, facts=answer.value)


def probe_tensorrt(system: System) -> Finding:
    """TensorRT, and which Python sees it. Nothing of it is created: some versions crash without a driver."""
    answer = module_facts(system, "tensorrt")
    if isinstance(answer.value, dict):
        version = str(answer.value["version"])
        if version_numbers(version) < OLDEST:
            return Finding(
                "TensorRT", "broken", f"{version} is too old", "Needs 10.3 or newer: JetPack 6.1", answer.value
            )
        return Finding("TensorRT", "ok", version, facts=answer.value)
    if not is_absent(answer, "tensorrt"):
        fix = "The wheel's libraries are missing or of another CUDA version: pip install --force-reinstall tensorrt"
        return Finding("TensorRT", "broken", f"installed but does not import: {answer.problem}", fix)
    elsewhere = system.python(
        "import json, tensorrt; print(json.dumps({'version': tensorrt.__version__}))", "/usr/bin/python3"
    )
    if isinstance(elsewhere.value, dict):
        version = elsewhere.value["version"]
        detail = f"this Python does not see it; /usr/bin/python3 has {version}"
        fix = "Make the environment again with: /usr/bin/python3 -m venv --system-site-packages"
        return Finding("TensorRT", "missing", detail, fix, {"system_python": version})
    libraries = system.matches("/usr/lib/*/libnvinfer.so.*")
    if libraries:
        fix = "sudo apt install python3-libnvinfer"
        return Finding("TensorRT", "missing", f"the library is here ({libraries[-1]}), its Python module is not", fix)
    fix = f'On a Jetson: {_JETPACK_HINT}; on x86-64 with a GPU: pip install "derain[tensorrt]"'
    return Finding("TensorRT", "missing", "not installed", fix)


def probe_tensorrt_rtx(system: System) -> Finding:
    """TensorRT-RTX."""
    answer = module_facts(system, "tensorrt_rtx")
    if isinstance(answer.value, dict):
        detail = f"{answer.value['version']}; builds engines for RTX GPUs, also without one"
        return Finding("TensorRT-RTX", "ok", detail, facts=answer.value)
    if is_absent(answer, "tensorrt_rtx"):
        fix = "To build for RTX GPUs without one: pip install tensorrt-rtx-cu13"
        return Finding("TensorRT-RTX", "missing", "not installed", fix)
    return Finding("TensorRT-RTX", "broken", f"installed but does not import: {answer.problem}")


def probe_trtexec(system: System) -> Finding:
    """Trtexec and its version."""
    path = system.which("trtexec") or next(iter(system.matches("/usr/src/tensorrt/bin/trtexec")), None)
    if path is None:
        fix = "It comes with JetPack and NVIDIA's packages, not with pip: sudo apt install libnvinfer-bin"
        return Finding("trtexec", "missing", "not found on the path nor in /usr/src/tensorrt/bin", fix)
    banner = system.run(path, "--help") or ""
    match = re.search(r"TensorRT v(\d+)", banner)
    if match is None:
        return Finding("trtexec", "broken", f"{path} does not tell its version", facts={"path": path})
    return Finding("trtexec", "ok", f"{path}, TensorRT {_banner_version(match[1])}", facts={"path": path})


def probe_jetson(system: System) -> Finding:
    """Board, JetPack, power mode and clocks of a Jetson."""
    board = system.read("/proc/device-tree/model")
    release = system.read("/etc/nv_tegra_release")
    if release is None and (board is None or "jetson" not in board.lower()):
        return Finding("Jetson", "missing", "this is no Jetson")
    l4t = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release or "")
    package = re.search(r"Version:\s*(\S+)", system.run("dpkg-query", "-s", "nvidia-jetpack") or "")
    power = re.search(r"Power Mode:\s*(.+)", system.run("nvpmodel", "-q") or "")
    facts = {
        "board": board,
        "l4t": f"{l4t[1]}.{l4t[2]}" if l4t else None,
        "jetpack": package[1] if package else None,
        "power_mode": power[1].strip() if power else None,
        "gpu_clock_hz": _clock(system),
    }
    parts = [board or "a Jetson", f"JetPack {facts['jetpack'] or 'unknown'} (L4T {facts['l4t'] or 'unknown'})"]
    parts.append(f"power mode {facts['power_mode'] or 'unknown'}")
    clock = facts["gpu_clock_hz"]
    if isinstance(clock, dict):
        parts.append(f"GPU clock {clock['now'] / 1e6:.0f} of at most {clock['max'] / 1e6:.0f} MHz")
        if clock["min"] < clock["max"]:
            fix = "Clocks follow the load. Before a benchmark: sudo nvpmodel -m 0 && sudo jetson_clocks"
            return Finding("Jetson", "warning", ", ".join(parts), fix, facts)
    return Finding("Jetson", "ok", ", ".join(parts), facts=facts)


def _clock(system: System) -> dict[str, int] | None:
    """GPU clocks in Hz from the kernel; the folder's name differs between boards."""
    for folder in system.matches("/sys/class/devfreq/*gpu*") + system.matches("/sys/class/devfreq/*ga10b*"):
        values = {name: system.read(f"{folder}/{name}_freq") for name in ("cur", "min", "max")}
        if all(value is not None and value.isdigit() for value in values.values()):
            return {"now": int(values["cur"] or 0), "min": int(values["min"] or 0), "max": int(values["max"] or 0)}
    return None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _banner_version(digits: str) -> str:
    """``100300`` is 10.3.0, ``8601`` is 8.6.1."""
    number = int(digits)
    if len(digits) < 6:
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
