"""``derain export`` and ``derain inspect`` from the command line, sizes, parity's verdict, and Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from small_network import PlainNetwork, SmallNetwork, run_model
from typer.testing import CliRunner

from derain.card import Parity, Profile, read_card
from derain.companions import COMPANIONS, beside
from derain.cost import measure
from derain.devices import DEVICES, estimate
from derain.errors import DerainError, ExportError, ModelFileError, UsageError
from derain.export import commands, exporter
from derain.export.contract import Contract
from derain.export.exporter import Exported, write
from derain.export.graph import CameraGraph
from derain.export.inspection import as_json, inspect
from derain.export.parity import compare, judge
from derain.export.pictures import generated_picture
from derain.export.report import render
from derain.export.sizes import make_profile
from derain.export.triton import configuration, write_repository
from derain.sizes import parse_size, size_text
from derain.train.checkpoint import CheckpointInfo

Exports = Callable[..., Exported]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, network: SmallNetwork) -> Callable[..., str]:
    """The command line with a checkpoint reader that gives the small network."""
    info = CheckpointInfo("tiny", "small", "edge", 7, 1, ["nothing"], "", "", 0.5, [])
    monkeypatch.setattr(exporter, "load_deployable", lambda _: (network, info))
    app = typer.Typer()
    commands.register(app)

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return call


def test_export_then_inspect(run: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "deep" / "model.onnx"
    printed = run("export", "x.ckpt", "-o", output, "--max", "320x240x4", "--name", "mine")
    assert "verified with onnxruntime" in printed
    card = read_card(output)
    assert (card.name, card.system, card.part, card.opset) == ("mine", "small", "whole", 18)
    assert card.profile.max == (4, 240, 320)
    assert card.training is not None
    assert card.training.steps == 7
    assert card.parity is not None
    assert card.parity.sizes == ["320x240", "275x181", "136x200x2"]
    assert list(output.parent.iterdir()) == [output]
    page = tmp_path / "report.html"
    text = run("inspect", output, "--size", "64x32", "--html", page)
    assert "kMAC/pixel" in text
    assert "Estimates, not measurements" in " ".join(text.split())
    assert page.read_text().count("<rect") >= 8
    document = json.loads(run("inspect", output, "--json"))
    assert document["card"]["name"] == "mine"
    assert document["estimates"]["note"].startswith("Estimates")


def test_tiled_writes_two_files_that_know_each_other(run: Callable[..., str], tmp_path: Path) -> None:
    run("export", "x.ckpt", "-o", tmp_path / "m.onnx", "--tiled", "--size", "64x64")
    tile, context = read_card(tmp_path / "m.onnx"), read_card(tmp_path / "m.context.onnx")
    assert (tile.part, tile.companion) == ("tile", "m.context.onnx")
    assert (context.part, context.companion) == ("context", "m.onnx")
    assert tile.profile.fixed
    assert context.profile.max == (1, 4320, 7680)
    assert [port.name for port in tile.inputs] == ["frame", "context"]


def test_companions_lie_beside_the_model(run: Callable[..., str], tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    run("export", "x.ckpt", "-o", model, "--companions")
    cards = {path.name: read_card(path) for path in tmp_path.iterdir()}
    parts = {"m.onnx": "whole"} | {beside(model, part).name: part for part in COMPANIONS}
    assert {name: card.part for name, card in cards.items()} == parts
    assert cards["m.tile.onnx"].companion == "m.tile.context.onnx"
    assert cards["m.tile.context.onnx"].companion == "m.tile.onnx"
    assert all((card.name, card.training) == ("tiny", cards["m.onnx"].training) for card in cards.values())


def test_a_network_without_extractor_and_context_has_no_companions(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "load_deployable", lambda _: (PlainNetwork().eval(), None))
    run("export", "x.ckpt", "-o", tmp_path / "m.onnx", "--companions")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.engine"], "ending in .onnx"),
        (["-o", "m.onnx", "--frames", "yuv"], "--frames"),
        (["-o", "m.onnx", "--yuv", "bt2020-full"], "--yuv"),
        (["-o", "m.onnx", "--size", "640"], "WIDTHxHEIGHT"),
        (["-o", "m.onnx", "--size", "640x0"], "height 0"),
        (["-o", "m.onnx", "--size", "640x480", "--max", "1x1"], "--size was given together"),
        (["-o", "m.onnx", "--min", "640x480", "--max", "320x240"], "larger than"),
        (["-o", "m.onnx", "--frames", "nv12", "--size", "641x480"], "NV12"),
        (["-o", "m.onnx", "--part", "discriminator"], "--part"),
        (["-o", "m.onnx", "--tiled", "--part", "attention"], "--tiled"),
        (["-o", "m.onnx", "--companions", "--tiled"], "--companions"),
        (["-o", "m.onnx", "--sm", "SM86"], "--verify"),
        (["-o", "m.onnx", "--verify", "openvino"], "--verify"),
        (["-o", "m.onnx", "--triton", "models", "--name", "a/b"], "'a/b' cannot be a folder"),
    ],
)
def test_wrong_options_write_nothing(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        run("export", "x.ckpt", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figures", "missing.json"], r"missing\.json"),
        (["--pictures", "missing"], "missing"),
        (["--verify", "tensorrt", "--sm", "sm87"], "knows no 'SM87'"),
    ],
)
def test_what_would_fail_late_is_refused_early(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    if "--sm" in arguments:
        pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporter, "load_deployable", lambda _: pytest.fail("the checkpoint was read already"))
    with pytest.raises(DerainError, match=message):
        run("export", "x.ckpt", "-o", "m.onnx", *arguments)


def test_a_graph_that_differs_is_not_written(
    run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporter.trace

    def bent(*arguments: object) -> object:
        from onnx import numpy_helper

        model = real(*arguments)  # type: ignore[arg-type]
        tail = next(tensor for tensor in model.graph.initializer if tensor.name == "network.tail.bias")
        tail.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tail) + np.float32(0.2), tail.name))
        return model

    monkeypatch.setattr(exporter, "trace", bent)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        run("export", "x.ckpt", "-o", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def _parity(levels: float, fraction: float, attention: float = 0.0, psnr: float | None = 80.0) -> Parity:
    return Parity(
        pictures=1, sizes=["1x1"], max_level_difference=levels, differing_fraction=fraction,
        attention_max_difference=attention, psnr=psnr, verified_with=[],
    )  # fmt: skip


def test_the_verdict() -> None:
    judge(_parity(1, 0.001), "edge", half=False, what="m")
    judge(_parity(1, 0.01), "full", half=False, what="m")
    judge(_parity(3, 0.2, psnr=45), "edge", half=True, what="m")
    for parity, variant, half in [
        (_parity(1, 0.0011), "edge", False),
        (_parity(2, 0.00001), "full", False),
        (_parity(1, 0.011), "full", False),
        (_parity(0, 0, attention=0.01), "edge", False),
        (_parity(3, 0.2, psnr=39), "edge", True),
    ]:
        with pytest.raises(ExportError):
            judge(parity, variant, half=half, what="m")


def test_parity_sees_not_a_number(exports: Exports, network: SmallNetwork) -> None:
    from onnx import ModelProto, numpy_helper

    exported = exports(frames="float")
    model = ModelProto()
    model.CopyFrom(exported.model)
    tail = next(tensor for tensor in model.graph.initializer if tensor.name == "network.extractor.bias")
    tail.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tail), np.nan), tail.name))
    graph = CameraGraph(network, Contract("float")).eval()
    found = compare(graph, model, [generated_picture(0)], exported.card.profile)
    assert found.attention_max_difference > 1e6


def test_a_users_pictures_are_used(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(DerainError, match="empty_folder"):
        run("export", "x.ckpt", "-o", tmp_path / "m.onnx", "--pictures", tmp_path / "empty_folder")
    assert not (tmp_path / "m.onnx").exists()


def test_sizes() -> None:
    assert parse_size("1280x720", "--size") == (1, 720, 1280)
    assert parse_size("1280X720x4", "--size") == (4, 720, 1280)
    assert size_text((4, 720, 1280)) == "1280x720x4"
    assert make_profile().opt == (1, 720, 1280)
    low = make_profile(maximum=(8, 480, 640))
    assert low.opt == (1, 480, 640)
    assert low.min == (1, 64, 64)
    large = make_profile(optimum=(2, 2160, 3840))
    assert large.max == (2, 2160, 3840)
    assert make_profile(size=(1, 32, 48)).fixed


def test_cost_by_hand(exports: Exports) -> None:
    """Every convolution of the small network counted with pencil: grid 1/4, so 1/16 of the pixels."""
    exported = exports()
    cost = measure(exported.model, exported.card, (1, 96, 128))
    per_pixel = (48 * 16 + 64 * 16 + 3 * 16 * 16 + 16 * 48) * 9 / 16
    context = (3 * 8 * 9 * 8 * 8 + 16 * 6) / (96 * 128)
    assert cost.kmac_per_pixel * 1000 == pytest.approx(per_pixel + context)
    assert exported.card.cost.kmac_per_pixel == pytest.approx(cost.kmac_per_pixel, abs=1e-3)
    assert cost.by_part()["stage"] == (pytest.approx(3 * 16 * 16 * 9 / 16 / 1000), 16 * 16 * 9 + 16)
    assert cost.activation_bytes > 96 * 128 * 3 * 4
    double = measure(exported.model, exported.card, (2, 96, 128))
    assert double.macs == 2 * cost.macs
    floor = next(item for item in estimate(cost, 4) if item.device == DEVICES[0].name)
    assert floor.compute == pytest.approx(2 * cost.macs / 17e12 * 1e3)
    assert floor.floor == max(floor.compute, floor.memory)


def test_the_card_alone_needs_no_onnx(exports: Exports, tmp_path: Path) -> None:
    write(exports(), tmp_path / "m.onnx")
    code = (
        "import sys\n"
        "for name in ('onnx', 'onnxslim', 'onnxruntime', 'torch', 'cv2'): sys.modules[name] = None\n"
        "import typer\nfrom derain.export.commands import register\n"
        "app = typer.Typer()\nregister(app)\napp()\n"
    )
    for option in ([], ["--json"], ["--html", str(tmp_path / "m.html")]):
        done = subprocess.run(
            [sys.executable, "-c", code, "inspect", str(tmp_path / "m.onnx"), *option],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "small" in done.stdout
    assert "derain[export]" in (tmp_path / "m.html").read_text()


def test_an_engine_is_pointed_to_its_record(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "edge.engine").write_bytes(b"plan")
    with pytest.raises(ModelFileError, match=r"is an engine.*edge\.engine\.json"):
        run("inspect", tmp_path / "edge.engine")


def test_a_cards_text_cannot_inject_html(exports: Exports, tmp_path: Path) -> None:
    exported = exports()
    evil = exported.card.model_copy(update={"name": "<script>alert(1)</script>"})
    copy = Exported(type(exported.model)(), evil)
    copy.model.CopyFrom(exported.model)
    exporter.set_card(copy.model, evil)
    write(copy, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert "<script" not in render(found)
    assert as_json(found)["card"]["name"].startswith("<script>")


def test_generated_pictures_are_natural_enough() -> None:
    picture = generated_picture(0)
    assert picture.shape == (512, 512, 3)
    assert 30 < picture.std() < 90
    assert np.array_equal(picture, generated_picture(0))
    assert not np.array_equal(picture, generated_picture(1))


def test_exporting_does_not_change_the_network(exports: Exports, network: SmallNetwork) -> None:
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    exports(frames="rgb")
    assert not network.training
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("case", [{}, {"size": (1, 48, 64)}, {"frames": "nv12"}, {"part": "attention"}], ids=str)
def test_triton_configuration_fits_its_schema(exports: Exports, case: dict[str, object], backend: str) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format

    card = exports(**case).card
    config = text_format.Parse(configuration(card, "small", backend), schema.ModelConfig())  # type: ignore[arg-type]
    assert config.max_batch_size == card.profile.max[0]
    assert [item.name for item in config.input] == [port.name for port in card.inputs]
    assert [item.name for item in config.output] == [port.name for port in card.outputs]
    assert all(len(item.dims) == len(port.layout) - 1 for item, port in zip(config.input, card.inputs, strict=True))
    assert config.HasField("dynamic_batching") == (card.profile.max[0] > 1)
    assert config.instance_group[0].count == 1
    assert (config.backend, config.platform) == (
        ("onnxruntime", "") if backend == "onnxruntime" else ("", "tensorrt_plan")
    )
    warm = config.model_warmup[0].inputs
    assert set(warm) == {port.name for port in card.inputs}
    assert all(side > 0 for item in warm.values() for side in item.dims)
    if card.profile.fixed:
        assert list(config.input[0].dims) == [48, 64, 3]


def test_triton_repository(exports: Exports, tmp_path: Path) -> None:
    write(exports(), tmp_path / "m.onnx")
    place = write_repository(tmp_path / "m.onnx", tmp_path / "models")
    assert place.name == exports().card.name
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
    ]
    assert (place / "1" / "model.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    write(exports(part="tile"), tmp_path / "t.onnx")
    with pytest.raises(UsageError, match="tiled"):
        write_repository(tmp_path / "t.onnx", tmp_path / "models")


def test_profile_of_a_fixed_size_is_compared_there(exports: Exports) -> None:
    card = exports(size=(1, 45, 62)).card
    assert card.profile == Profile(min=(1, 45, 62), opt=(1, 45, 62), max=(1, 45, 62))
    assert card.parity is not None
    assert card.parity.sizes == ["62x45"]
    assert run_model(exports(size=(1, 45, 62)), generated_picture(0, 45, 62)[None])[0].shape == (1, 45, 62, 3)
