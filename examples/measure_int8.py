"""Every figure of docs/calibration.md.

    python examples/measure_int8.py DATA OUT nano edge --page docs/calibration.md
        [--qat NAME=CKPT[@STEPS] ...] [--modelopt PYTHON]

DATA holds Rain100L/train, Rain100L/test, RainFog, real, clean and splits.json, as docs/training.md describes them.
Rain100L/test is measured and used for nothing else. A model is a shipped one or a float32 .onnx. `--qat` fine-tunes its
checkpoint for INT8, too. `--modelopt` is the interpreter of an environment with nvidia-modelopt[onnx], which quantizes
the model from the same frames. What OUT/NAME.json has already is not measured again; delete it after training anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_page import write_page

from derain.calibration.calibrate import Calibrated, Prepared, calibrate, finish, prepare, write
from derain.calibration.frames import Options, feeds
from derain.calibration.qdq import quantized_convolutions
from derain.calibration.session import Runner, open_session
from derain.card import ModelCard, read_card
from derain.errors import CalibrationError
from derain.files import atomic_path
from derain.images import list_images, read_image
from derain.metrics import psnr, ssim
from derain.models import resolve
from derain.runtime.ports import Picture

COUNT = 32  # calibration frames
SOURCES = ("Rain100L/train", "RainFog", "real", "clean")
GATES = (0.2, 0.1)  # dB
SIZE = (360, 640)  # of the timed frame
RUNS = 20
MODELOPT = """
import json
import sys
import numpy as np
import modelopt.onnx.quantization as q
model, frames, output, name, options = sys.argv[1:]
q.quantize(model, "int8", calibration_data={name: np.load(frames)}, calibration_eps=["cpu"], output_path=output,
           high_precision_dtype="fp32", log_level="WARNING", **json.loads(options))
"""


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--qat", action="append", default=[], metavar="NAME=CKPT[@STEPS]")
    parser.add_argument("--modelopt", type=Path, metavar="PYTHON")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    checkpoints = dict(entry.split("=", 1) for entry in given.qat)
    measured = [Measurement(given.data, given.out, resolve(model)) for model in given.models]
    for measurement in measured:
        measurement.calibrated()
    for measurement in measured:
        if given.modelopt is not None:
            measurement.modelopt(given.modelopt)
        if measurement.name in checkpoints:
            measurement.trained(*checkpoints[measurement.name].partition("@")[::2])
    print(write_page({measurement.name: measurement.found for measurement in measured}, given.page))


class Measurement:
    """All figures of one model, ``found``, kept in a file after each step."""

    def __init__(self, data: Path, out: Path, path: Path) -> None:
        self.out, self.path, self.data, self.name = out, path, data, path.stem
        self.record = out / f"{path.stem}.json"
        self.found: dict[str, Any] = json.loads(self.record.read_text()) if self.record.exists() else {}
        self.card = read_card(path)
        self.options = Options(tuple(data / name for name in SOURCES), split=data / "splits.json", count=COUNT)
        self.forms: dict[str, Any] = self.found.setdefault("forms", {})
        self.begun = time.process_time()

    def keep(self, **more: Any) -> None:
        """Add figures, and write all that are there."""
        self.found.update(more)
        with atomic_path(self.record) as temporary:
            temporary.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")

    def say(self, text: str) -> None:
        """One line of progress, with the CPU seconds since the model was begun."""
        print(f"{self.name} {time.process_time() - self.begun:6.0f} s  {text}", file=sys.stderr, flush=True)

    def calibrated(self) -> None:
        """Float32, float16, INT8 with no layer kept and behind several gates; ranges, sensitivity, speed."""
        if "speed" in self.found:
            return
        self.add("float32", onnx.load(str(self.path)), self.path)
        half = calibrate(self.path, Options(self.options.frames, "float16", 0.05, split=self.options.split))
        self.add("float16", half.model, self.save(half, "fp16"), half)
        prepared = prepare(self.path, self.options, say=self.say)
        chosen = [len(prepared.selection.names), prepared.selection.seen]
        self.keep(
            compared=prepared.compared, sensitivity=prepared.sensitivity, chosen=chosen, channels=spread(prepared)
        )
        everything = finish(prepared, 1000.0)  # no gate
        self.add("INT8, no gate", everything.model, self.save(everything, "all.int8"), everything)
        for limit in GATES:
            try:
                done = finish(prepared, limit, say=self.say)
            except CalibrationError as error:
                self.forms[f"INT8, `--max-drop {limit:g}`"] = {"failed": str(error)}
                continue
            self.add(f"INT8, `--max-drop {limit:g}`", done.model, self.save(done, f"{limit:g}.int8"), done)
        self.keep(speed=self.speed({"float32": onnx.load(str(self.path)), "int8": everything.model}))

    def trained(self, checkpoint: str, steps: str) -> None:
        """INT8 after quantization-aware training for the arithmetic of the file that no gate has touched."""
        if "trained" in self.found:
            return
        name, out = self.name, self.out
        data = [part for folder in ("Rain100L/train", "RainFog") for part in ("--pairs", str(self.data / folder))]
        data += ["--clean", str(self.data / "clean"), "--split", str(self.data / "splits.json")]
        run = ["--qat", checkpoint, "--ranges", str(out / f"{name}.all.int8.onnx"), "--device", "cpu", "--threads", "1"]
        length = ["--steps", steps] if steps else []
        self.say("training")
        begin = time.monotonic()
        derain("train", *run, *length, *data, "--workers", "0", "--out", str(out / f"{name}-qat"))
        minutes = (time.monotonic() - begin) / 60
        exported = out / f"{name}-qat.onnx"
        derain("export", str(out / f"{name}-qat" / "last.ckpt"), "-o", str(exported))
        self.add("the trained network in float32", onnx.load(str(exported)), exported)
        options = Options(self.options.frames, split=self.options.split, against=self.path)
        prepared = prepare(exported, options, say=self.say)
        everything = out / f"{name}-qat.all.int8.onnx"
        onnx.save(prepared.lower.build(frozenset()), str(everything))
        self.add("INT8 after training", onnx.load(str(everything)), everything)
        try:
            verdict = f"passes the default gate with {len(finish(prepared, 0.2).found.kept)} layers kept"
        except CalibrationError as error:
            verdict = f"does not pass the default gate ({error})"
        self.keep(trained={"steps": int(steps or 1000), "minutes": minutes, "verdict": verdict})

    def modelopt(self, python: Path) -> None:
        """What NVIDIA ModelOpt makes of the same frames; it takes arrays, so that all are cut to one size."""
        if "modelopt" in self.found:
            return
        frames = []
        report = json.loads((self.out / f"{self.name}.all.int8.report" / "report.json").read_text())
        for feed in feeds(self.options, list(report["chosen"]), self.card):
            frame = feed[self.card.inputs[0].name]
            frame = frame if frame.shape[1] < frame.shape[2] else frame.transpose(0, 2, 1, 3)
            if frame.shape[1] >= 320 and frame.shape[2] >= 480:
                frames.append(frame[:, :320, :480])
        np.save(self.out / "frames.npy", np.concatenate(frames))
        image = {"nodes_to_exclude": ["camera/.*", "context/.*", "fog/.*"]}
        for form, options in {"": {}, " without the picture's own layers": image}.items():
            self.say(f"ModelOpt{form}")
            output = self.out / f"{self.name}.modelopt{len(options)}.onnx"
            arguments = [str(self.path), str(self.out / "frames.npy"), str(output), self.card.inputs[0].name]
            command = [str(python), "-c", MODELOPT, *arguments, json.dumps(options)]
            subprocess.run(command, check=True, capture_output=True)
            model = onnx.load(str(output))
            self.add(f"ModelOpt{form}", model, output)
            self.forms[f"ModelOpt{form}"]["layers"] = layers_of(model)
        self.keep(modelopt=len(frames))

    def save(self, done: Calibrated, form: str) -> Path:
        """Write the file and its report."""
        output = self.out / f"{self.name}.{form}.onnx"
        write(done, output, output.with_name(f"{output.stem}.report"))
        return output

    def add(self, form: str, model: onnx.ModelProto, path: Path, done: Calibrated | None = None) -> None:
        """Measure a form on all sets, unless it was."""
        if form in self.forms:
            return
        self.say(f"measuring {form}")
        entry: dict[str, Any] = {"kib": path.stat().st_size / 1024, "sets": evaluate(model, self.card, self.data)}
        if done is not None and done.card.calibration is not None:
            entry["int8"], entry["sums"] = len(done.card.calibration.int8), len(done.card.calibration.additions)
            entry["convolutions"] = entry["int8"] + len(done.found.kept & set(self.found.get("sensitivity", {})))
            entry["kept"] = sorted(done.found.kept)
            entry["drop"] = done.change.drop
        self.forms[form] = entry
        self.keep()

    def speed(self, models: dict[str, onnx.ModelProto]) -> dict[str, Any]:
        """Median CPU milliseconds of one thread for one frame, forms in turn; and what onnxruntime really runs."""
        self.say("speed")
        frame = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
        runs = {name: Runner(model, self.card, 1) for name, model in models.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(RUNS + 3):
            for name, run in runs.items():
                begin = time.process_time()
                run(frame)
                if turn >= 3:
                    times[name].append(1000 * (time.process_time() - begin))
        graph = self.out / "optimised.onnx"
        open_session(models["int8"], 1, graph)
        kinds = [node.op_type for node in onnx.load(str(graph)).graph.node]
        integer = kinds.count("QLinearConv")
        medians = {name: float(np.median(values)) for name, values in times.items()}
        return medians | {"integer": integer, "all": len(quantized_convolutions(models["int8"]))}


def spread(prepared: Prepared) -> dict[str, float]:
    """How many times as large as its middle channel each group of tensors has its largest."""
    changes = prepared.lower.equalizing.changes
    return {group.writers[0]: float(by.max() / np.median(by)) for group, by in changes}


def derain(*arguments: str) -> None:
    """Run the command; stop where it fails."""
    subprocess.run([sys.executable, "-m", "derain", *arguments], check=True, stdout=subprocess.DEVNULL)


def layers_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Which convolutions are quantized, and of which operators how many inputs."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    rounded = [
        (node.op_type, sum(makers.get(name) == "DequantizeLinear" for name in node.input))
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    ]
    others = {kind for kind, count in rounded if count and kind not in ("Conv", "Add")}
    return {
        "convolutions": quantized_convolutions(model),
        "others": sorted(others),
        "sums": {str(number): sum(pair == ("Add", number) for pair in rounded) for number in (1, 2)},
    }


def evaluate(model: onnx.ModelProto, card: ModelCard, data: Path) -> dict[str, list[float]]:
    """Set to PSNR and SSIM, `y_matlab`, means over its pictures."""
    run = Runner(model, card, 1)
    found = {}
    for name, pairs in sets(data).items():
        scores = []
        for rainy, clean in pairs():
            derained = run(rainy)
            scores.append((psnr(derained, clean, "y_matlab"), ssim(derained, clean, "y_matlab")))
        found[name] = np.mean(scores, axis=0).tolist()
    return found


def sets(data: Path) -> dict[str, Any]:
    """What is measured on: a function that reads its pairs, by name."""
    held = json.loads((data / "splits.json").read_text())

    def pairs(folder: Path, names: list[str] | None) -> list[tuple[Picture, Picture]]:
        clean = {path.stem: path for path in list_images(folder / "clean")}
        rainy = [path for path in list_images(folder / "rainy") if names is None or path.name in names]
        return [(read_image(path), read_image(clean[path.stem])) for path in rainy]

    def dry() -> list[tuple[Picture, Picture]]:
        return [(read_image(data / "clean" / name),) * 2 for name in held["clean"]]

    return {
        "Rain100L/test": partial(pairs, data / "Rain100L" / "test", None),
        "RainFog held out": partial(pairs, data / "RainFog", held["RainFog"]),
        "dry": dry,
    }


if __name__ == "__main__":
    main()
