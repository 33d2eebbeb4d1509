"""What the camera's contract inside the graph costs. Run: python measure_contract.py UINT8.onnx FLOAT.onnx [PAIRS]

The files are one network, exported twice for one size: for uint8 BGR frames, and with `--frames float`, where nothing
is cast, reordered, scaled or rounded. Both run the same picture in turns, in one process, in an order drawn anew for
each pair; the cost is the median of the pairs' ratios. The quartiles tell how far pairs differ from each other.
"""

import random
import sys
import time
from pathlib import Path

import numpy as np

from derain.card import read_card
from derain.runtime.backends.base import Backend, Buffers, dtype_of, find
from derain.runtime.engine.options import input_shape
from derain.runtime.engine.selftest import fixed_inputs

FILES = {"uint8": Path(sys.argv[1]), "float": Path(sys.argv[2])}
PAIRS = int(sys.argv[3]) if sys.argv[3:] else 60
THREADS = 2
WARM_UP = 8


class Runner:
    """One of the two files, open in one backend, with its buffers."""

    def __init__(self, path: Path, backend: type[Backend]) -> None:
        card = read_card(path)
        self.size = card.profile.opt
        self.backend = backend(path, card, threads=THREADS)
        self.backend.open()
        self._inputs = fixed_inputs(card, self.size)
        self._outputs: Buffers = {
            port.name: np.empty(input_shape(port, self.size), dtype_of(port)) for port in card.outputs
        }
        for _ in range(WARM_UP):
            self.milliseconds()

    def milliseconds(self) -> float:
        """The time of one frame."""
        begin = time.perf_counter()
        self.backend.infer(self._inputs, self._outputs)
        return 1000 * (time.perf_counter() - begin)


draw = random.Random(0)
for name in ("onnxruntime", "openvino"):
    runners = {kind: Runner(path, find(name)) for kind, path in FILES.items()}
    times: dict[str, list[float]] = {kind: [] for kind in runners}
    for _ in range(PAIRS):
        for kind in draw.sample(sorted(runners), 2):
            times[kind].append(runners[kind].milliseconds())
    ratios = np.array(times["uint8"]) / np.array(times["float"])
    low, middle, high = (100 * (value - 1) for value in np.percentile(ratios, (25, 50, 75)))
    _, height, width = runners["uint8"].size
    medians = ", ".join(f"{kind} {np.median(values):.1f} ms" for kind, values in times.items())
    print(
        f"{width}x{height}, {runners['uint8'].backend.device}, {THREADS} threads: {medians}; cost {middle:+.1f} % "
        f"(quartiles {low:+.1f} to {high:+.1f}, {PAIRS} pairs)",
        flush=True,
    )
    for runner in runners.values():
        runner.backend.close()
