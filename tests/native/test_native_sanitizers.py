"""The library under load from many threads; in the full tests also with sanitizers, under valgrind, and fuzzed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from derain.runtime.backends import native_library

ROOT = Path(__file__).resolve().parents[2]
HOSTILE_TIME = 120  # seconds of fuzzing each program


def succeed(*command: str | Path, **variables: str) -> str:
    words = [str(word) for word in command]
    result = subprocess.run(
        words, capture_output=True, text=True, timeout=1800, check=False, env={**os.environ, **variables}
    )
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout[-4000:]}\n{result.stderr[-8000:]}"
    return result.stdout


def built(folder: Path, *settings: str, targets: tuple[str, ...] = (), **variables: str) -> Path:
    """A build of its own; ``targets`` instead of everything."""
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    succeed("cmake", "-S", ROOT, "-B", folder, python, "-DCMAKE_BUILD_TYPE=RelWithDebInfo", *settings, **variables)
    chosen = ["--target", *targets] if targets else []
    succeed("cmake", "--build", folder, "-j2", *chosen)
    return folder


@pytest.fixture(scope="module")
def address_build(library: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, the GStreamer element included, with the address and undefined behaviour sanitizers."""
    return built(tmp_path_factory.mktemp("address"), "-DDERAIN_SANITIZE=address,undefined")


def test_stress(library: ctypes.CDLL, model_path: Path) -> None:
    folder = Path(native_library.library_path()).resolve().parent
    succeed(folder / "test_stress", model_path)


def run_tests(folder: Path, model_path: Path, **options: str) -> None:
    """The C and C++ tests of a build."""
    # Else TBB loads a library in a way that the address sanitizer refuses.
    options["TBB_ENABLE_SANITIZERS"] = "1"
    succeed("ctest", "--test-dir", folder, "--output-on-failure", **options)
    succeed(folder / "test_stress", model_path, **options)


@pytest.mark.full
def test_address_and_undefined_behaviour(address_build: Path, model_path: Path) -> None:
    run_tests(address_build, model_path)


@pytest.mark.full
def test_threads(library: ctypes.CDLL, model_path: Path, tmp_path: Path) -> None:
    """No report in any of the tests. What OpenVINO and TBB do inside is theirs: they are not instrumented."""
    folder = built(tmp_path, "-DDERAIN_SANITIZE=thread", "-DDERAIN_GSTREAMER=OFF")
    suppressions = tmp_path / "suppressions"
    suppressions.write_text("race:libopenvino\nrace:libtbb\n")
    run_tests(folder, model_path, TSAN_OPTIONS=f"suppressions={suppressions} ignore_noninstrumented_modules=1")


@pytest.mark.full
def test_element_under_address_sanitizer(address_build: Path, model_path: Path, tmp_path: Path) -> None:
    if not (address_build / "test_gst_element").is_file():
        pytest.skip("the GStreamer element was not built")
    succeed(
        address_build / "test_gst_element",
        model_path,
        GST_PLUGIN_PATH=str(address_build / "gstreamer-1.0"),
        GST_REGISTRY=str(tmp_path / "registry.bin"),
        GST_REGISTRY_FORK="no",
        TBB_ENABLE_SANITIZERS="1",
        ASAN_OPTIONS="detect_leaks=0",  # GLib keeps its type system until the process ends
    )


# glibc's loader compares strings a word at a time, past their ends, when it resolves $ORIGIN.
LOADER = """{
   loader
   Memcheck:Addr8
   fun:strncmp
   fun:is_dst
   ...
   fun:_dl_map_object
}
"""


@pytest.mark.full
def test_valgrind(library: ctypes.CDLL, tmp_path: Path) -> None:
    """No error and nothing lost, in what needs no model."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    suppressions = tmp_path / "suppressions"
    suppressions.write_text(LOADER)
    valgrind = ["valgrind", "--quiet", "--error-exitcode=9", f"--suppressions={suppressions}"]
    folder = Path(native_library.library_path()).resolve().parent
    for name in ("test_header", "test_card", "test_engine", "test_frame"):
        command = [*valgrind, "--leak-check=full", "--errors-for-leak-kinds=definite"]
        subprocess.run([*command, str(folder / name)], cwd=folder, check=True, timeout=1800)


def has_fuzzer(folder: Path) -> bool:
    """Whether clang is here with its runtime libraries, which are a package of their own."""
    if shutil.which("clang++") is None:
        return False
    source = folder / "empty.cpp"
    source.write_text('extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }\n')
    command = ["clang++", "-fsanitize=fuzzer,address,undefined", str(source), "-o", str(folder / "empty")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.full
def test_fuzzing(library: ctypes.CDLL, tmp_path: Path) -> None:
    if not has_fuzzer(tmp_path):
        pytest.skip("clang with libFuzzer (Debian: clang, libclang-rt-dev) is not installed")
    settings = (
        "-DDERAIN_FUZZ=ON",
        "-DDERAIN_SANITIZE=address,undefined",
        "-DDERAIN_OPENVINO=OFF",
        "-DDERAIN_GSTREAMER=OFF",
    )
    programs = ("fuzz_card", "fuzz_frame")
    folder = built(tmp_path / "build", *settings, targets=(*programs, "test_mutations"), CC="clang", CXX="clang++")
    for name in programs:
        limits = (f"-max_total_time={HOSTILE_TIME}", "-timeout=10", f"-artifact_prefix={tmp_path}/")
        seeds = tmp_path / name
        seeds.mkdir()
        succeed(folder / "test_mutations", seeds, name)
        succeed(folder / name, seeds, *limits)


@pytest.mark.full
def test_cross_build_for_arm(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("g++-aarch64-linux-gnu is not installed")
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / 'aarch64-linux-gnu.cmake'}"
    built(tmp_path, toolchain, "-DDERAIN_WERROR=ON")
    header = succeed("aarch64-linux-gnu-readelf", "-h", tmp_path / "libderain.so")
    assert "AArch64" in header
    if shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64"):  # its vector units too
        assert "100% tests passed" in succeed("ctest", "--test-dir", tmp_path, "--output-on-failure")
