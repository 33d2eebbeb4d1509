"""``derain plan``: the arithmetic of its estimates, their correction by measured runs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from standin import card_of, save_model
from test_bench_result import candidate, result
from typer.testing import CliRunner, Result

from derain.card import Precision, Profile
from derain.cli import app
from derain.devices import DEVICES, Device, find_device
from derain.errors import DataError, UsageError
from derain.runtime.bench.schema import Reading, write_result
from derain.runtime.planning import Correction, Model, best, corrections_from, open_model, plan

SHAPE = (1, 64, 96)
MACS = 64 * 96 * 27  # the stand-in: three channels, each through a kernel of 3 x 3
# Moves a megabyte a second and computes 10 MOP/s: a device on which the stand-in takes a time one can see.
SLOW = Device("slow", "Slow", "Slowboard", fp16_tflops=1e-5, int8_tops=2e-5, gigabytes_per_second=1)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return open_model("standin", save_model(tmp_path / "standin.onnx"))


def test_operations_and_bytes_of_a_known_network(model: Model) -> None:
    half, int8 = plan([model], SLOW, SHAPE, 30)
    assert half.estimate.precision == "float16"
    assert half.estimate.operations == 2 * MACS
    assert half.estimate.compute == pytest.approx(2 * MACS / 1e7 * 1e3)
    # Two planes of three channels, in float32 in the file: read padded by one pixel, written as they are.
    values = 3 * (66 * 98 + 64 * 96) + 27
    assert half.estimate.traffic == pytest.approx(values * 2)
    assert int8.estimate.traffic == pytest.approx(values)
    assert half.expected == pytest.approx(half.estimate.compute / 0.3)
    assert half.span == pytest.approx((half.estimate.compute / 0.35, half.estimate.compute / 0.25))
    assert int8.expected == pytest.approx(half.expected / 2)


@pytest.mark.parametrize(("share", "verdict"), [(0.24, "fits"), (0.3, "may fit"), (0.36, "too slow")])
def test_a_verdict_holds_over_what_networks_reach(model: Model, share: float, verdict: str) -> None:
    floor = 2 * MACS / 1e7
    half, _ = plan([model], SLOW, SHAPE, fps=share / floor)
    assert half.verdict == verdict
    assert half.margin == pytest.approx(0.3 / share)


def test_the_largest_that_fits(model: Model) -> None:
    fast, slow = 0.1 / (2 * MACS / 1e7), 0.3 / (2 * MACS / 1e7)
    chosen = best(plan([model], SLOW, SHAPE, fast))
    assert chosen is not None
    assert chosen.estimate.precision == "float16"
    chosen = best(plan([model], SLOW, SHAPE, slow))
    assert chosen is not None
    assert chosen.estimate.precision == "int8"
    assert best(plan([model], SLOW, SHAPE, 10_000)) is None


def test_a_measured_run_corrects_the_estimate(model: Model) -> None:
    """Measured at twice the sides: four times the work, and half as fast again as estimated."""
    large = plan([model], SLOW, (1, 128, 192), 30)[0]
    run = candidate(model="standin", precision="float16", backend="tensorrt", level=1.5 * large.expected)
    measured = result(run, width=192, height=128)
    assert measured.machine is not None
    machine = measured.machine.model_copy(update={"board": Reading(value="The Slowboard Developer Kit")})
    here = measured.model_copy(update={"machine": machine})
    (correction,) = corrections_from(here, "run.json", [model], SLOW)
    assert correction.factor == pytest.approx(run.latency.p50 / large.expected)
    assert "run.json: standin float16, tensorrt" in correction.source
    plain, corrected = (plan([model], SLOW, SHAPE, 30, some) for some in ((), [correction]))
    assert corrected[0].expected == pytest.approx(correction.factor * plain[0].expected)
    assert (corrected[0].basis, corrected[1].basis) == ("measured", "another precision")
    with pytest.raises(DataError, match="measured on a machine without a GPU"):
        corrections_from(measured, "run.json", [model], SLOW)
    trtexec = here.model_copy(update={"machine": None})
    assert corrections_from(trtexec, "times.json", [model], SLOW)[0].factor == correction.factor


def test_the_nearest_measured_run_counts(model: Model) -> None:
    corrections = [
        Correction("standin", "float16", 2.0, ""),
        Correction("standin", "float16", 0.5, ""),
        Correction("other", "int8", 3.0, ""),
    ]
    half, int8 = plan([model], SLOW, SHAPE, 30, corrections)
    assert (half.factor, half.basis) == (pytest.approx(1.0), "measured")
    assert (int8.factor, int8.basis) == (pytest.approx(3.0), "another model measured")


@pytest.mark.parametrize(
    "changes",
    [{"backend": "onnxruntime"}, {"precision": "float32"}, {"model": "stranger"}],
    ids=["on the CPU", "no device rate", "another model"],
)
def test_runs_that_tell_nothing(model: Model, changes: dict[str, str]) -> None:
    run = candidate(**{"model": "standin", "precision": "float16", "backend": "tensorrt", **changes})
    with pytest.raises(DataError, match="holds no run of standin"):
        corrections_from(result(run, machine=None), "run.json", [model], SLOW)


def test_int8_files_are_scaled_back(tmp_path: Path) -> None:
    """A file that is INT8 already stores a byte where float16 has two."""
    card = card_of(precision=Precision(kind="int8"))
    half, int8 = plan(
        [open_model("q", save_model(tmp_path / "q.onnx", card=card))], find_device("orin-nano"), SHAPE, 30
    )
    assert half.estimate.traffic == 2 * int8.estimate.traffic


def test_devices_have_keys_of_their_own() -> None:
    assert len({device.key for device in DEVICES}) == len(DEVICES)
    assert find_device("Orin-Nano").name.startswith("Orin Nano")
    with pytest.raises(UsageError, match="orin-nano, orin-nx"):
        find_device("toaster")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)], env={"COLUMNS": "160"})


def test_the_command_says_that_it_estimates(tmp_path: Path) -> None:
    path = save_model(tmp_path / "standin.onnx")
    told = invoke(path, "--device", "orin-nano", "--size", "1920x1080", "--fps", 30)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("ESTIMATE for Orin Nano 8GB Super, 1920x1080 at 30 frames/s: 33.3 ms")
    operations = 2 * 1920 * 1080 * 27 / 1e9
    assert f"{operations:.1f} / 17 = {operations / 17:.2f}" in told.stdout
    assert "ESTIMATE: the largest that fits is standin float16" in told.stdout
    assert "Estimates, not measurements" in told.stdout


def test_the_command_with_times_of_trtexec(tmp_path: Path) -> None:
    path = save_model(tmp_path / "standin.onnx", card=card_of(precision=Precision(kind="float16")))
    times = [
        {"startComputeMs": 10.0 * n, "endComputeMs": 10.0 * n + 8, "computeMs": 8, "h2dMs": 1, "d2hMs": 1}
        | {"latencyMs": 10}
        for n in range(20)
    ]  # fmt: skip
    (tmp_path / "times.json").write_text(json.dumps(times))
    bench = ("--from-trtexec", tmp_path / "times.json", "--size", "1280x720", "--json", tmp_path / "run.json")
    assert CliRunner().invoke(app, ["bench", str(path), *map(str, bench)]).exit_code == 0
    told = invoke(path, "--device", "orin-nano", "--measured", tmp_path / "run.json")
    assert told.exit_code == 0, told.output
    assert "measured / estimated = " in told.stdout
    assert "10.0" in told.stdout.split("verdict")[1].splitlines()[2], (
        "at the measured size the estimate is the measured time"
    )


def test_the_table_of_devices() -> None:
    told = invoke("--device", "list")
    assert told.exit_code == 0
    assert all(device.key in told.stdout for device in DEVICES)


@pytest.mark.parametrize("number", range(6))
def test_what_a_user_can_get_wrong_is_one_line(tmp_path: Path, number: int) -> None:
    path = save_model(tmp_path / "standin.onnx")
    shape = (1, 480, 640)
    fixed = save_model(tmp_path / "fixed.onnx", card=card_of(profile=Profile(min=shape, opt=shape, max=shape)))
    write_result(result(candidate(model="standin")), tmp_path / "cpu.json")
    arguments, code, text = [
        ((path, "--device", "toaster"), 2, "no device 'toaster'"),
        ((path, "--device", "l4", "--fps", 0), 2, "--fps is 0"),
        ((path, "--device", "l4", "--size", "wide"), 2, "--size is 'wide'"),
        (("nobody", "--device", "l4"), 1, "no model named 'nobody'"),
        ((fixed, "--device", "l4", "--size", "64x48"), 2, "exported for 640x480 only"),
        ((path, "--device", "l4", "--measured", tmp_path / "cpu.json"), 1, "cpu.json"),
    ][number]
    told = invoke(*arguments)
    assert told.exit_code == code, told.output
    assert text in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
