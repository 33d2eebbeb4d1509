"""Both runtimes judge TensorRT engines alike: what Python wrote, C++ finds, and what Python refuses, C++ refuses."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from derain.card import ModelCard, Profile, read_card
from derain.errors import ModelFileError
from derain.runtime.backends import native_library
from derain.runtime.engine.driver import Driver, Gpu
from derain.runtime.engine.key import make_key
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.record import (
    SelfTest,
    adopted,
    new_record,
    read_record,
    record_path,
    write_engine,
    write_record,
)
from derain.runtime.engine.store import cache_folder, cache_path, look
from derain.runtime.engine.toolkit import Toolkit

SIZES = Profile(min=(1, 16, 16), opt=(1, 48, 64), max=(1, 96, 128))
PLAN = b"a plan" * 100


def machine(
    version: str = "10.3.0",
    gpu: str = "Orin",
    capability: tuple[int, int] = (8, 7),
    cuda: tuple[int, int] = (12, 6),
    driver: str | None = "540.4.0",
) -> tuple[Toolkit, Driver]:
    """A TensorRT and a GPU that are not here."""
    gpus = (Gpu(gpu, capability, 1 << 33, True),)
    return Toolkit("tensorrt", SimpleNamespace(), version), Driver("ok", cuda, gpus, version=driver)


@pytest.fixture
def model(standin: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    path: Path = standin.save_model(tmp_path / "edge.onnx", card=standin.card_of(profile=SIZES, name="edge v2/rain"))
    return path


def build(model: Path, engine: Path, on: tuple[Toolkit, Driver], **options: Any) -> None:
    """What ``derain build`` writes."""
    card = read_card(model)
    key = make_key(model.read_bytes(), card, BuildOptions(profile=SIZES, **options), *on)
    engine.parent.mkdir(parents=True, exist_ok=True)
    write_engine(engine, PLAN, new_record(PLAN, key, card, model.name, 1.0))


def ask(library: ctypes.CDLL, on: tuple[Toolkit, Driver], path: Path, engine: str = "") -> tuple[list[str], str]:
    """The C++ side's choice: path of the engine, its size, path of the model; and what it says on the way."""
    toolkit, driver = on
    assert driver.cuda is not None
    gpu = driver.gpus[0]
    numbers = [str(number) for number in (*gpu.capability, *driver.cuda)]
    program = Path(native_library.library_path()).resolve().parent / "find_engine"
    result = subprocess.run(
        [program, path, engine, toolkit.version, gpu.name, *numbers, driver.version or ""],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == (0 if result.stdout else 1), result.stderr
    return result.stdout.splitlines(), result.stderr


HERE = machine()
MACHINES = [
    machine(),
    machine("10.13.3"),
    machine("11.1.0"),
    machine(gpu="Thor", capability=(11, 0)),
    machine(gpu="Orin", capability=(8, 6)),
    machine(cuda=(13, 0)),
    machine(driver="550.54.14"),
    machine(driver=None),
]


@pytest.mark.parametrize(
    "options",
    [{}, {"version_compatible": True}, {"hardware_compatible": True}, {"capabilities": ("SM86",)}, {"dla_core": 1}],
)
@pytest.mark.parametrize("on", MACHINES)
def test_the_same_engines_fit(
    library: ctypes.CDLL, model: Path, tmp_path: Path, on: tuple[Toolkit, Driver], options: dict[str, Any]
) -> None:
    engine = tmp_path / "edge.engine"
    build(model, engine, HERE, **options)
    found, said = ask(library, on, model)
    try:
        look(engine, *on)
    except ModelFileError as error:
        assert not found
        reason = error.found.partition("does not fit this machine: ")[2]
        assert reason
        assert reason in said
    else:
        assert found == [str(engine), str(len(PLAN)), str(model)]


def cut(engine: Path, model: Path) -> None:
    engine.write_bytes(PLAN[:-1])


def change(engine: Path, model: Path) -> None:
    engine.write_bytes(PLAN[:-1] + b"?")


def lose_record(engine: Path, model: Path) -> None:
    record_path(engine).unlink()


def spoil_record(engine: Path, model: Path) -> None:
    record_path(engine).write_text(record_path(engine).read_text()[:-20])


def retrain(engine: Path, model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"\x32\x03abc")  # a documentation string


DAMAGES: list[tuple[Callable[[Path, Path], None], str]] = [
    (cut, "cut short: it has 599 bytes"),
    (change, "another checksum"),
    (lose_record, "no record beside it"),
    (spoil_record, "is not JSON"),
    (retrain, "built from another model file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_refused_and_the_cache_used(
    library: ctypes.CDLL, model: Path, tmp_path: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    engine = tmp_path / "edge.engine"
    build(model, engine, HERE)
    damage(engine, model)
    found, said = ask(library, HERE, model)
    assert not found
    assert message in said
    card = read_card(model)
    key = make_key(model.read_bytes(), card, BuildOptions(profile=SIZES), *HERE)
    cached = cache_path(cache_folder(), card, key)
    build(model, cached, HERE)
    found, said = ask(library, HERE, model)
    assert found[0] == str(cached)
    assert message in said
    assert not ask(library, HERE, model, str(engine))[0], "an engine that was named is not replaced"


def test_no_engine_says_where_it_was_looked_for(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    found, said = ask(library, HERE, model)
    assert not found
    assert str(tmp_path / "edge.engine") in said
    assert "derain build" in said


def test_an_engine_serves_as_the_model(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    engine = tmp_path / "other.engine"
    build(model, engine, HERE)
    assert ask(library, HERE, engine)[0] == [str(engine), str(len(PLAN)), str(model)]
    model.unlink()
    assert ask(library, HERE, engine)[0] == [str(engine), str(len(PLAN)), ""]
    record = read_record(engine)
    write_record(engine, record.model_copy(update={"card": None}))
    found, said = ask(library, HERE, engine)
    assert not found
    assert "holds no model card" in said


def test_records_of_trtexec(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    engine = tmp_path / "edge.engine"
    build(model, engine, HERE)
    for toolkit in ("tensorrt 10.3.0", "tensorrt 10.1.0 or newer", "tensorrt 10.1.0", "tensorrt 11.0.0 or newer"):
        plain = {"made_by": "trtexec", "key": None, "card": None, "toolkit": toolkit}
        write_record(engine, read_record(engine).model_copy(update=plain))
        try:
            look(engine, *HERE)
            fits = True
        except ModelFileError:
            fits = False
        assert bool(ask(library, HERE, model)[0]) is fits, toolkit


def test_engines_adopted_from_trtexec(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    engine = tmp_path / "edge.engine"
    engine.write_bytes(PLAN)
    write_record(engine, adopted(engine, model, read_card(model)))
    assert ask(library, HERE, model)[0] == [str(engine), str(len(PLAN)), str(model)]
    assert ask(library, HERE, engine)[0][2] == str(model)
    retrain(engine, model)
    found, said = ask(library, HERE, model)
    assert not found
    assert "built from another model file" in said
    assert ask(library, HERE, engine)[0][2] == ""


def test_self_tests_that_python_reads(library: ctypes.CDLL, model: Path, tmp_path: Path) -> None:
    """The record that C++ writes after a test (test_engine.cpp) has this form."""
    engine = tmp_path / "edge.engine"
    build(model, engine, HERE)
    text = record_path(engine).read_text()
    done = '"self_test": {\n  "reference": "OpenVINO on CPU",\n  "psnr": 61.23,\n  "size": [1, 48, 64]\n }'
    assert '"self_test": null' in text
    record_path(engine).write_text(text.replace('"self_test": null', done))
    assert read_record(engine).self_test == SelfTest(reference="OpenVINO on CPU", psnr=61.23, size=(1, 48, 64))
    assert isinstance(read_record(engine).card, ModelCard)
    assert ask(library, HERE, model)[0]
