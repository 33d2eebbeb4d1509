"""An installed libderain: the examples of docs/embedding.md, find_package, pkg-config, the command-line tool."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from native_client import Client, Image
from numpy.typing import NDArray

from derain.runtime.backends import native_library

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"
WIDTH, HEIGHT = 64, 48


def run(*command: str | Path, data: bytes | None = None, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(word) for word in command],
        input=data,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **variables},
    )


def succeed(*command: str | Path, data: bytes | None = None, **variables: str) -> bytes:
    result = run(*command, data=data, **variables)
    assert result.returncode == 0, result.stderr.decode() + result.stdout.decode()
    return result.stdout


@pytest.fixture(scope="session")
def build(library: ctypes.CDLL) -> Path:
    return Path(native_library.library_path()).resolve().parent


@pytest.fixture(scope="session")
def prefix(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the build was installed to."""
    if not (build / "cmake_install.cmake").is_file() or shutil.which("cmake") is None:
        pytest.skip(f"'{build}' is no build folder, or cmake is missing")
    prefix = tmp_path_factory.mktemp("prefix")
    succeed("cmake", "--install", build, "--prefix", prefix)
    return prefix


def pkg_config(prefix: Path) -> list[str]:
    (file,) = prefix.rglob("derain.pc")
    return succeed("pkg-config", "--cflags", "--libs", "derain", PKG_CONFIG_PATH=str(file.parent)).decode().split()


def library_folder(prefix: Path) -> str:
    return str(next(prefix.rglob("libderain.so")).parent)


def block(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


@pytest.fixture
def rainy() -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(4).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8))


def derained(library: ctypes.CDLL, model_path: Path, frames: list[NDArray[np.uint8]]) -> list[bytes]:
    results = []
    with Client(library, model_path) as client:
        for frame in frames:
            clean = Image(library, "bgr", WIDTH, HEIGHT)
            client.run(Image(library, "bgr", WIDTH, HEIGHT).fill([frame]), clean)
            results.append(clean.planes[0].tobytes())
    return results


@pytest.mark.parametrize(
    ("language", "compiler", "flags"),
    [("c", "cc", ["-std=c99", "-pedantic"]), ("cpp", "c++", ["-std=c++17"])],
)
def test_examples_of_the_document(
    library: ctypes.CDLL,
    prefix: Path,
    model_path: Path,
    rainy: list[NDArray[np.uint8]],
    tmp_path: Path,
    language: str,
    compiler: str,
    flags: list[str],
) -> None:
    source = tmp_path / f"embed.{language}"
    source.write_text(block(language))
    program = tmp_path / "embed"
    succeed(compiler, *flags, "-Wall", "-Wextra", "-Werror", source, "-o", program, *pkg_config(prefix))
    frames = rainy if language == "cpp" else rainy[:1]
    data = b"".join(frame.tobytes() for frame in frames)
    folder = library_folder(prefix)
    arguments = [program, model_path, str(WIDTH), str(HEIGHT)]
    assert succeed(*arguments, data=data, LD_LIBRARY_PATH=folder) == b"".join(derained(library, model_path, frames))
    assert b"usage: embed" in run(program, LD_LIBRARY_PATH=folder).stderr
    arguments[1] = tmp_path / "absent.onnx"
    failed = run(*arguments, data=data, LD_LIBRARY_PATH=folder)
    assert failed.returncode == 1
    assert b"absent.onnx" in failed.stderr


def test_find_package(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        "#include <derain.h>\n#include <stdio.h>\nint main(void){puts(derain_version());}\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(user C)\nadd_executable(user main.c)\n"
        + block("cmake").replace("your_program", "user")
    )
    succeed("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    succeed("cmake", "--build", tmp_path / "build")
    assert re.fullmatch(rb"\d+\.\d+\.\d+\n", succeed(tmp_path / "build" / "user"))


def test_tool_derains_a_picture(
    library: ctypes.CDLL, prefix: Path, model_path: Path, rainy: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    header = f"P6\n# made by a test\n{WIDTH} {HEIGHT}\n255\n".encode()
    (tmp_path / "rainy.ppm").write_bytes(header + rainy[0][..., ::-1].tobytes())
    succeed(prefix / "bin" / "derain-native", "run", model_path, tmp_path / "rainy.ppm", tmp_path / "clean.ppm")
    clean = np.frombuffer((tmp_path / "clean.ppm").read_bytes()[-WIDTH * HEIGHT * 3 :], np.uint8)
    expected = np.frombuffer(derained(library, model_path, rainy)[0], np.uint8).reshape(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(clean.reshape(HEIGHT, WIDTH, 3), expected[..., ::-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.ppm", "rainy.ppm"]


def test_tool_derains_a_video_through_pipes(library: ctypes.CDLL, prefix: Path, model_path: Path) -> None:
    random = np.random.default_rng(6)
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F30:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n".encode()
    shapes = [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (HEIGHT // 2, WIDTH // 2)]
    frames = [[random.integers(0, 256, shape, np.uint8) for shape in shapes] for _ in range(4)]
    data = header + b"".join(b"FRAME\n" + b"".join(plane.tobytes() for plane in frame) for frame in frames)
    expected = header
    with Client(library, model_path) as client:
        for frame in frames:
            clean = Image(library, "i420", WIDTH, HEIGHT, colour=1)
            client.run(Image(library, "i420", WIDTH, HEIGHT, colour=1).fill(frame), clean)
            expected += b"FRAME\n" + b"".join(plane.tobytes() for plane in clean.planes)
    tool = prefix / "bin" / "derain-native"
    assert succeed(tool, "run", model_path, "-", "-", data=data) == expected
    cut = run(tool, "run", model_path, "-", "-", data=data[:-5])
    assert cut.returncode == 1
    assert b"ends in the middle of a frame" in cut.stderr


def test_tool_bench_and_info(prefix: Path, model_path: Path) -> None:
    tool = prefix / "bin" / "derain-native"
    text = succeed(tool, "bench", model_path, "--size", "64x48", "--frames", "20", "--format", "nv12").decode()
    assert re.search(r"median [\d.]+ ms, p99 [\d.]+ ms, [\d.]+ frames/s", text)
    assert b"standin" in succeed(tool, "info", model_path)
    assert b"derain-native run" in succeed(tool, "--help")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "absent.onnx", "a.ppm", "b.ppm"], 1, b"a.ppm' cannot be opened"),
        (["info", "absent.onnx"], 1, b"absent.onnx' cannot be opened"),
        (["info", "absent.onnx", "--threads", "0"], 2, b"--threads is '0'"),
        (["bench", "absent.onnx", "--size", "12"], 2, b"WIDTHxHEIGHT"),
        (["bench", "absent.onnx", "--speed", "12"], 2, b"no option --speed"),
        (["fly"], 2, b"derain-native run"),
    ],
)
def test_tool_says_what_is_wrong(prefix: Path, arguments: list[str], code: int, message: bytes) -> None:
    result = run(prefix / "bin" / "derain-native", *arguments)
    assert result.returncode == code
    assert message in result.stderr


@pytest.mark.full
def test_packages(build: Path, prefix: Path, tmp_path: Path) -> None:
    succeed("cpack", "--config", build / "CPackConfig.cmake", "-B", tmp_path)
    (package,) = tmp_path.glob("*.deb")
    listed = succeed("dpkg-deb", "-c", package).decode()
    needed = succeed("dpkg-deb", "-f", package, "Depends").decode()
    assert re.search(r"libc6 \(>= \d+\.\d+\)", needed), needed
    for name in ("libderain.so.0", "derain.h", "derain-config.cmake", "derain.pc", "derain-native", "LICENSE"):
        assert name in listed
    assert list(tmp_path.glob("*.tar.gz"))
