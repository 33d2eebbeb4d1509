"""`derain doctor` tells what is there, what is missing and what is broken, and survives all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from derain.cli import app
from derain.runtime import doctor_gpu, doctor_software
from derain.runtime.doctor import examine, probes
from derain.runtime.doctor_system import Answer, Finding, System

ORIN = {
    "state": "ok",
    "cuda": [12, 6],
    "gpus": [{"name": "Orin", "capability": [8, 7], "memory_bytes": 8 << 30, "integrated": True}],
    "detail": "",
    "version": "540.4.0",
}
NONE = {"state": "no_driver", "cuda": None, "gpus": [], "detail": "", "version": None}
CRASH = Answer(None, "the process crashed with SIGSEGV", crashed=True)


class Machine(System):
    """A machine of which only what a test states exists. ``pythons``: what code that holds a word answers."""

    def __init__(self, **given: Any) -> None:
        self.files: dict[str, str] = given.get("files", {})
        self.commands: dict[str, str] = given.get("commands", {})
        self.pythons: dict[str, Answer] = given.get("pythons", {})
        self.variables: dict[str, str] = given.get("variables", {})
        self.system_python = given.get("system_python", Answer(None, "No such file"))

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def matches(self, pattern: str) -> list[str]:
        from fnmatch import fnmatch

        names = {*self.files, *(path.rsplit("/", 1)[0] for path in self.files)}
        return sorted(name for name in names if fnmatch(name, pattern))

    def which(self, command: str) -> str | None:
        return f"/usr/bin/{command}" if command in self.commands else None

    def run(self, *command: str) -> str | None:
        return self.commands.get(command[0].rsplit("/", 1)[-1])

    def python(self, code: str, interpreter: str | None = None) -> Answer:
        if interpreter is not None:
            return self.system_python
        for word, answer in self.pythons.items():
            if word in code:
                return answer
        name = code.partition("import_module('")[2].partition("'")[0] or "cuda"
        return Answer(None, f"ModuleNotFoundError: No module named '{name}'")

    def environment(self, name: str) -> str | None:
        return self.variables.get(name)


def look(probe: Callable[[System], Finding], **given: Any) -> Finding:
    return probe(Machine(**given))


def test_a_gpu_with_its_driver() -> None:
    found = look(doctor_gpu.probe_gpu, pythons={"probe_driver": Answer(ORIN)})
    assert (found.state, found.detail) == ("ok", "Orin (SM87, 8.0 GiB); driver 540.4.0, for CUDA up to 12.6")


def test_no_driver_is_not_a_driver_that_is_too_old() -> None:
    missing = look(doctor_gpu.probe_gpu, pythons={"probe_driver": Answer(NONE)})
    assert (missing.state, missing.detail) == ("missing", "no NVIDIA driver (libcuda.so.1 is not here)")
    newer = {"version": "13.0.1", "runtime": 13000}
    old = look(doctor_gpu.probe_cuda, pythons={"probe_driver": Answer(ORIN), "cudaRuntime": Answer(newer)})
    assert old.state == "broken"
    assert "supports CUDA 12.6, older than the CUDA 13.0 runtime" in old.detail
    assert 'pip install "cuda-bindings>=12,<13"' in old.fix
    none = look(doctor_gpu.probe_cuda, pythons={"probe_driver": Answer(NONE), "cudaRuntime": Answer(newer)})
    assert none.state == "ok"


def test_a_hidden_gpu_and_a_driver_that_crashes() -> None:
    hidden = {**NONE, "state": "no_device", "cuda": [12, 6]}
    found = look(doctor_gpu.probe_gpu, pythons={"probe_driver": Answer(hidden)}, variables={"CUDA_VISIBLE_DEVICES": ""})
    assert "may hide the GPU" in found.fix
    crashed = look(doctor_gpu.probe_gpu, pythons={"probe_driver": CRASH})
    assert crashed.state == "broken"
    assert "SIGSEGV" in crashed.detail
    damaged = look(doctor_gpu.probe_gpu, pythons={"probe_driver": Answer({**NONE, "detail": "invalid ELF header"})})
    assert damaged.state == "broken"
    assert "invalid ELF header" in damaged.detail


@pytest.mark.parametrize(
    ("given", "state", "text"),
    [
        ({"pythons": {"'tensorrt'": Answer({"version": "10.3.0"})}}, "ok", "10.3.0"),
        ({"pythons": {"'tensorrt'": Answer({"version": "8.6.1"})}}, "broken", "too old"),
        ({"pythons": {"'tensorrt'": CRASH}}, "broken", "crashed with SIGSEGV"),
        ({"pythons": {"'tensorrt'": Answer(None, "ImportError: libnvinfer.so.10")}}, "broken", "libnvinfer.so.10"),
        ({"system_python": Answer({"version": "10.3.0"})}, "missing", "/usr/bin/python3 has 10.3.0"),
        ({"files": {"/usr/lib/aarch64-linux-gnu/libnvinfer.so.10": ""}}, "missing", "its Python module is not"),
        ({}, "missing", "not installed"),
    ],
)
def test_tensorrt_and_which_python_sees_it(given: dict[str, Any], state: str, text: str) -> None:
    found = look(doctor_gpu.probe_tensorrt, **given)
    assert found.state == state
    assert text in found.detail
    assert found.fix or state == "ok"


def test_a_jetson() -> None:
    clock = "/sys/class/devfreq/17000000.gpu"
    files = {
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
        f"{clock}/cur_freq": "306000000",
        f"{clock}/min_freq": "306000000",
        f"{clock}/max_freq": "1020000000",
    }
    commands = {"dpkg-query": "Package: nvidia-jetpack\nVersion: 6.2+b77\n", "nvpmodel": "NV Power Mode: 25W\n1\n"}
    found = look(doctor_gpu.probe_jetson, files=files, commands=commands)
    assert found.state == "warning"
    assert found.detail == (
        "NVIDIA Jetson Orin Nano Developer Kit, JetPack 6.2+b77 (L4T 36.4.3), power mode 25W, "
        "GPU clock 306 of at most 1020 MHz"
    )
    assert "jetson_clocks" in found.fix
    assert look(doctor_gpu.probe_jetson).detail == "this is no Jetson"
    bare = look(doctor_gpu.probe_jetson, files={"/etc/nv_tegra_release": "odd"})
    assert "JetPack unknown (L4T unknown)" in bare.detail


@pytest.mark.parametrize(("banner", "version"), [("100300", "10.3.0"), ("101303", "10.13.3"), ("8601", "8.6.1")])
def test_trtexec(banner: str, version: str) -> None:
    given = {"trtexec": f"&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] # trtexec --help"}
    assert look(doctor_gpu.probe_trtexec, commands=given).detail == f"/usr/bin/trtexec, TensorRT {version}"
    assert look(doctor_gpu.probe_trtexec, commands={"trtexec": "hello"}).state == "broken"


def test_onnxruntime_that_lists_what_cannot_work() -> None:
    facts = Answer({"version": "1.23", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]})
    names = Answer(["onnxruntime-gpu"])
    pythons = {"get_available": facts, "importlib.metadata": names, "probe_driver": Answer(NONE)}
    found = look(doctor_software.probe_onnxruntime, pythons=pythons)
    assert found.state == "warning"
    assert "CUDAExecutionProvider cannot work, as there is no NVIDIA driver" in found.detail
    both = {**pythons, "importlib.metadata": Answer(["onnxruntime", "onnxruntime-gpu"])}
    assert "overwrite each other" in look(doctor_software.probe_onnxruntime, pythons=both).detail


def test_opencv_codecs_memory() -> None:
    cv2 = Answer({"version": "4.8.0", "gstreamer": False})
    jetson = {"/etc/nv_tegra_release": "R36"}
    assert "use JetPack's" in look(doctor_software.probe_opencv, pythons={"'cv2'": cv2}, files=jetson).fix
    old = Answer(None, "ImportError: numpy.core.multiarray failed to import")
    assert 'pip install "numpy<2"' in look(doctor_software.probe_opencv, pythons={"'cv2'": old}).fix
    no_x264 = Answer({"version": "18", "decode": ["h264"], "encode": []})
    assert look(doctor_software.probe_codecs, pythons={"av.Codec": no_x264}).state == "warning"
    low = {"/proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 500000 kB\n"}
    assert look(doctor_software.probe_memory, files=low).state == "warning"
    assert look(doctor_software.probe_memory).state == "missing"


@pytest.mark.parametrize("answer", [CRASH, Answer(None), Answer([]), Answer({}), Answer("text"), Answer(7)])
def test_no_answer_of_any_piece_makes_it_crash(answer: Answer) -> None:
    findings = examine(Machine(pythons={"": answer}, commands={"trtexec": "", "nvpmodel": "", "dpkg-query": ""}))
    assert [finding.part for finding in findings] == [name for name, _ in probes()]


def test_a_probe_that_fails_is_a_finding() -> None:
    def bad(system: System) -> Finding:
        raise RuntimeError("odd")

    (found,) = examine(Machine(), [("odd", bad)])
    assert found.detail == "could not be looked at: RuntimeError: odd"


def test_children_that_crash_hang_or_babble() -> None:
    system = System()
    assert system.python("print(1 + 1)").value == 2
    crashed = system.python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (crashed.value, crashed.problem, crashed.crashed) == (None, "the process crashed with SIGSEGV", True)
    assert "no JSON" in system.python("print('{')").problem
    assert system.python("raise ValueError('odd')").problem == "ValueError: odd"
    assert system.run("/no/such/command") is None
    assert system.read("/no/such/file") is None


def test_the_command_on_this_machine() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    document = json.loads(result.stdout)
    findings = {finding["part"]: finding for finding in document["findings"]}
    assert findings.keys() == {name for name, _ in probes()}
    assert not [finding for finding in document["findings"] if "bug of derain" in finding["fix"]]
    assert result.exit_code == (0 if findings["backends"]["state"] == "ok" else 1)
