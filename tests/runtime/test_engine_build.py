"""NVIDIA's own parser and builder, without a GPU, through TensorRT-RTX; and what stands before it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from engine_machines import NO_DRIVER, SIZES, driver
from onnx import TensorProto, helper
from standin import card_of, save_model
from typer.testing import CliRunner

from derain.card import Port, Precision, Profile
from derain.cli import app
from derain.errors import BackendError, MissingDependencyError, UsageError
from derain.runtime.engine import toolkit as toolkit_module
from derain.runtime.engine.build import Built, build_plan
from derain.runtime.engine.driver import Driver, ask_driver, kernel_module_version
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.progress import PhaseTree
from derain.runtime.engine.record import read_model_card, read_plan, read_record
from derain.runtime.engine.script import build_script
from derain.runtime.engine.selftest import fixed_inputs
from derain.runtime.engine.toolkit import choose_toolkit, import_toolkit, version_numbers

pytest.importorskip("tensorrt_rtx")
SM86 = BuildOptions(profile=SIZES, capabilities=("SM86",))


def build(path: Path, options: BuildOptions = SM86, **arguments: Any) -> Built:
    card = card_of(profile=SIZES)
    return build_plan(path.read_bytes(), card, options, import_toolkit("tensorrt-rtx"), **arguments)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))


def test_it_builds_with_progress(path: Path) -> None:
    seen: list[tuple[str, float]] = []
    options = BuildOptions(profile=SIZES, capabilities=("SM86", "SM120"), workspace_mib=64, optimization_level=1)
    built = build(path, options, report=lambda phase, share: seen.append((phase, share)))
    assert len(built.plan) > 10_000
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({phase for phase, _ in seen}) > 3


def test_it_can_be_cancelled(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(path, cancelled=lambda: True)


def test_a_fixed_size_needs_no_profile(tmp_path: Path) -> None:
    fixed = card_of(profile=Profile(min=(1, 48, 64), opt=(1, 48, 64), max=(1, 48, 64)))
    path = save_model(tmp_path / "fixed.onnx", card=fixed)
    options = BuildOptions(profile=fixed.profile, capabilities=("SM86",))
    assert build_plan(path.read_bytes(), fixed, options, import_toolkit("tensorrt-rtx")).plan


def test_a_tile_graph_takes_its_context(tmp_path: Path) -> None:
    """A whole-frame context of 8 numbers, added to every pixel of a tile."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["context"], ["mean"], keepdims=0),
        helper.make_node("Add", ["f", "mean"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["derained"], to=TensorProto.UINT8),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["B", "H", "W", 3])
    context = helper.make_tensor_value_info("context", TensorProto.FLOAT, ["B", 8])
    clean = helper.make_tensor_value_info("derained", TensorProto.UINT8, ["B", "H", "W", 3])
    graph = helper.make_graph(nodes, "g", [frame, context], [clean])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    port = Port(name="context", layout="NC", dtype="float32", channels="context", value_range=(-9, 9))
    whole = card_of(profile=SIZES)
    card = card_of(profile=SIZES, part="tile", context_size=8, inputs=[*whole.inputs, port], outputs=whole.outputs[:1])
    assert build_plan(model.SerializeToString(), card, SM86, import_toolkit("tensorrt-rtx")).plan
    assert "frame:1x16x16x3,context:1x8" in build_script("tile.onnx", card, BuildOptions(profile=SIZES))
    assert fixed_inputs(card, (1, 16, 16))["context"].shape == (1, 8)


def test_the_parsers_reason_comes_through(tmp_path: Path) -> None:
    """TensorRT refuses Transpose on uint8; the CUDA error 35 that follows without a driver is not the reason."""
    nodes = [helper.make_node("Transpose", ["frame"], ["derained"], "turn", perm=[0, 3, 1, 2])]
    frame = helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, ["B", "H", "W", 3])
    clean = helper.make_tensor_value_info("derained", onnx.TensorProto.UINT8, ["B", 3, "H", "W"])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [frame], [clean]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    path = tmp_path / "refused.onnx"
    onnx.save(model, str(path))
    with pytest.raises(BackendError, match=r"TensorRT-RTX .* refuses .*turn.*UInt8") as caught:
        build(path)
    assert "error code 35" not in caught.value.found.lower()
    with pytest.raises(BackendError, match="refuses the graph"):
        build_plan(b"no onnx", card_of(profile=SIZES), SM86, import_toolkit("tensorrt-rtx"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capabilities": ("SM87",)}, r"knows no compute capability 'SM87'.*Orin \(SM87\) and Thor"),
        ({"dla_core": 0}, "--dla was given with a model in float32"),
        ({"version_compatible": True}, "--version-compatible was given with TensorRT-RTX"),
        ({"hardware_compatible": True}, "--hardware-compatible was given"),
    ],
)
def test_options_it_does_not_have(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(path, SM86.model_copy(update=options))


def test_accelerators_are_counted_by_tensorrt(tmp_path: Path) -> None:
    one = Profile(min=(1, 48, 64), opt=(1, 48, 64), max=(1, 48, 64))
    card = card_of(profile=one, precision=Precision(kind="float16"))
    path = save_model(tmp_path / "fixed.onnx", card=card)
    options = BuildOptions(profile=one, capabilities=("SM86",), dla_core=0)
    with pytest.raises(UsageError, match="finds 0 deep learning accelerators"):
        build_plan(path.read_bytes(), card, options, import_toolkit("tensorrt-rtx"))


def derain(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["build", *arguments])


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="written for a machine without a GPU")
def test_derain_build_ahead_of_time(path: Path) -> None:
    result = derain("edge.onnx", "--for", "sm86", "--for", "SM120", "--max", "64x64")
    assert result.exit_code == 0, result.output
    assert "Built edge.engine with TensorRT-RTX" in result.stdout
    assert "frames of 16x16 to 64x64, fastest at 64x48; SM86, SM120" in result.stdout
    assert "Not run here (there is no NVIDIA driver here" in result.stdout
    engine = path.with_suffix(".engine")
    record = read_record(engine)
    assert read_plan(engine, record)
    assert record.self_test is None
    assert read_model_card(engine).profile.max == (1, 64, 64)
    again = derain("edge.onnx", "--for", "SM86", "--for", "SM120", "--max", "64x64")
    assert again.stdout == "edge.engine is up to date\n"


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="written for a machine without a GPU")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "must be told what to build for, as there is no NVIDIA driver here"),
        (("--builder", "tensorrt"), 1, "builds engines on the GPU they are for, and there is no NVIDIA driver"),
        (("--builder", "cutlass"), 2, "There is no builder 'cutlass'"),
        (("--for", "SM86", "--script"), 2, "the script builds on the device"),
        (("--for", "SM86", "--workspace", "0"), 2, "workspace_mib is 0"),
        (("--for", "SM86", "-o", "edge.onnx"), 2, "is the model itself"),
    ],
)
def test_derain_build_says_what_is_wrong(path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = derain("edge.onnx", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not list(path.parent.glob("*.engine*"))


_INTERRUPTED = """
import os, signal, sys
from derain.runtime.engine import store
real, sent = store.build_plan, []

def build(*arguments, report, **options):
    def signalling(phase, share):
        report(phase, share)
        if share > 0.1 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
    return real(*arguments, report=signalling, **options)

store.build_plan = build
from derain.cli import main
sys.argv = ["derain", "build", "edge.onnx", "--for", "SM86"]
main()
"""


def test_ctrl_c_ends_a_build_and_leaves_nothing(path: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED]
    result = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 130
    assert result.stderr == "Error: Interrupted.\n"
    assert not list(path.parent.glob("*.engine*"))


# ---- drivers -------------------------------------------------------------------------------------------------------


class Library:
    """libcuda as ctypes shows it."""

    def __init__(self, version: int = 12060, init: int = 0, names: tuple[str, ...] = ("Orin",)) -> None:
        self.version, self.init, self.names = version, init, names

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self.init

    def cuDriverGetVersion(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, pointer: Any, index: int) -> int:  # noqa: N802
        pointer._obj.value = index
        return 0

    def cuDeviceGetName(self, buffer: Any, _size: int, device: Any) -> int:  # noqa: N802
        buffer.value = self.names[device.value].encode()
        return 0

    def cuDeviceTotalMem_v2(self, pointer: Any, _device: Any) -> int:  # noqa: N802
        pointer._obj.value = 8 << 30
        return 0

    def cuDeviceGetAttribute(self, pointer: Any, attribute: int, _device: Any) -> int:  # noqa: N802
        pointer._obj.value = {75: 8, 76: 7, 18: 1}[attribute]
        return 0

    def cuGetErrorString(self, code: int, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = b"no such thing"
        return 0


def test_a_driver_is_asked_for_everything_once() -> None:
    found = ask_driver(lambda name: Library())
    assert found.usable
    assert found.cuda == (12, 6)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.sm, gpu.memory_bytes, gpu.integrated) == ("Orin", "SM87", 8 << 30, True)


def test_no_driver_is_told_from_one_that_is_too_old() -> None:
    def none(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    def damaged(name: str) -> Any:
        raise OSError(f"{name}: invalid ELF header")

    assert ask_driver(none).problem == "there is no NVIDIA driver here"
    assert ask_driver(damaged).problem == "there is no NVIDIA driver here (libcuda.so.1: invalid ELF header)"
    old = ask_driver(lambda name: Library())
    assert old.too_old_for((12, 9)) is None
    assert old.too_old_for((13, 0)) == (
        "the driver supports CUDA 12.6, older than the CUDA 13.0 runtime that is installed"
    )
    assert ask_driver(none).too_old_for((13, 0)) is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@)\n",
            "540.4.0",
        ),
        ("GCC version:  gcc version 12.3.0\n", None),
        ("", None),
    ],
)
def test_the_kernel_module_tells_the_drivers_version(text: str, version: str | None) -> None:
    assert kernel_module_version(text) == version


@pytest.mark.parametrize(
    ("library", "state", "text"),
    [
        (Library(init=100), "no_device", "finds no GPU"),
        (Library(names=()), "no_device", "finds no GPU"),
        (Library(init=999), "broken", "cuInit: error 999, no such thing"),
        (ctypes.CDLL(None), "broken", "cuInit"),
    ],
)
def test_drivers_that_do_not_work(library: Any, state: str, text: str) -> None:
    found = ask_driver(lambda name: library)
    assert found.state == state
    assert text in found.problem


# ---- which TensorRT ------------------------------------------------------------------------------------------------


class Old:
    __version__ = "8.6.1"


def test_the_toolkit_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> Any:
        if name == "tensorrt":
            return type("trt", (), {"__version__": "10.3.0"})
        return __import__(name)

    monkeypatch.setattr(toolkit_module.importlib, "import_module", importing)
    assert str(choose_toolkit("auto", driver())) == "TensorRT 10.3.0"
    assert choose_toolkit("auto", NO_DRIVER).name == "tensorrt-rtx"
    assert choose_toolkit("tensorrt-rtx", driver()).name == "tensorrt-rtx"
    with pytest.raises(BackendError, match="there is no NVIDIA driver"):
        choose_toolkit("tensorrt", NO_DRIVER)
    monkeypatch.setattr(toolkit_module.importlib, "import_module", lambda name: Old)
    with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 is installed. Expected 10\.3 or newer"):
        choose_toolkit("tensorrt", driver())


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    def broken(name: str) -> Any:
        raise ImportError("libnvinfer.so.10: cannot open")

    monkeypatch.setattr(toolkit_module.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="--system-site-packages"):
        import_toolkit("tensorrt")
    with pytest.raises(BackendError, match=r"No TensorRT can build engines here.*--script"):
        choose_toolkit("auto", driver())
    monkeypatch.setattr(toolkit_module.importlib, "import_module", broken)
    with pytest.raises(BackendError, match=r"installed but does not import \(libnvinfer"):
        import_toolkit("tensorrt")


def test_versions() -> None:
    assert version_numbers("10.13.3.9") == (10, 13, 3, 9)
    assert version_numbers("11.0.0rc1") == (11, 0)


def test_phases_add_up() -> None:
    tree = PhaseTree()
    tree.start("all", None, 4)
    tree.step("all", 0)
    assert tree.share == 0.25
    tree.start("inside", "all", 2)
    tree.step("inside", 0)
    assert tree.innermost == "inside"
    assert tree.share == 0.375
    tree.finish("inside")
    assert tree.share == 0.375  # never less
    tree.step("all", 9)
    tree.step("unknown", 1)
    assert tree.share == 1
    tree.finish("all")
    assert tree.share == 1
    assert Driver("ok").problem == ""
