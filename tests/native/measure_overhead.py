"""What the C API adds to the backend's own inference: pairs of both, one beside the other, for every pixel format.

    python tests/native/measure_overhead.py MODEL.onnx [--size 1280x720] [--pairs 30] [--threads 2] [--formats bgr,i420]

Each pair is one frame through ``derain_run``, frame in to frame out, and one inference of the same graph by OpenVINO
itself, compiled for that size with the same settings and on memory that is bound once; which of the two comes first
alternates. The figure is the median of the pairs' ratios: a disturbance of the machine hits both halves of a pair,
or is outvoted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from native_client import FORMATS, Client, Image, to_planes

from derain.runtime.backends import native_library as native
from derain.runtime.backends.openvino_graph import streamline


def plain_inference(path: Path, width: int, height: int, threads: int, pixels: np.ndarray) -> Callable[[], None]:
    """OpenVINO's own inference. Its tensors do not keep the arrays that they share, so the function does."""
    core = openvino.Core()
    model = core.read_model(path)
    streamline(model, openvino.opset13)  # as the library does
    model.reshape({"frame": [1, height, width, 3]})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    memory = {port: np.zeros(port.shape, port.element_type.to_dtype()) for port in compiled.outputs}
    memory[compiled.inputs[0]] = pixels
    for port, array in memory.items():
        request.set_tensor(port, openvino.Tensor(array, shared_memory=True))

    def infer(kept: object = memory) -> None:
        request.infer()

    return infer


def float_frame(width: int, height: int, values: np.ndarray) -> native.Frame:
    library = native.open_library(native.library_path())
    planes = np.ascontiguousarray(values.astype(np.float32))
    addresses = [planes[plane].ctypes.data for plane in range(3)]
    frame = native.new_frame(library, native.RGB_PLANAR_F32, width, height, *addresses)
    frame.memory = planes  # which lives as long as the frame does
    return frame


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", default=",".join([*FORMATS, "f32"]))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    library = native.open_library(native.library_path())
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    plain = plain_inference(options.model, width, height, options.threads, pixels[None])
    print(f"{options.model.stem}, {width}x{height}, {options.threads} threads, {options.pairs} pairs a format")
    print("format   C API, ms   OpenVINO, ms   C API adds")
    with Client(library, options.model, threads=options.threads, backend=b"openvino") as client:
        for name in options.formats.split(","):
            if name == "f32":
                rainy = float_frame(width, height, pixels.transpose(2, 0, 1)[::-1] / 255)
                clean = float_frame(width, height, np.zeros((3, height, width)))
            else:
                images = [Image(library, name, width, height, 2).fill(to_planes(pixels, name, 2)) for _ in range(2)]
                rainy, clean = (image.struct for image in images)

            def through_c(rainy: native.Frame = rainy, clean: native.Frame = clean) -> None:
                native.check(library, library.derain_run(client.handle, rainy, clean))

            for _ in range(5):  # the third frame of a size makes the backend compile for it
                through_c()
                plain()
            times = np.zeros((options.pairs, 2))
            for index, pair in enumerate(times):
                for which in (index % 2, 1 - index % 2):
                    start = time.perf_counter()
                    (through_c, plain)[which]()
                    pair[which] = 1000 * (time.perf_counter() - start)
            c_api, own = np.median(times, axis=0)
            added = 100 * (np.median(times[:, 0] / times[:, 1]) - 1)
            print(f"{name:6} {c_api:11.2f} {own:14.2f} {added:+11.2f} %", flush=True)


if __name__ == "__main__":
    main()
