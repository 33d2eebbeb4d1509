"""The engine cache cannot lie: what does not fit is told apart, explained, and built again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from engine_machines import SIZES, Builds, builds, driver, model, request, toolkit
from standin import card_of, save_model

from derain.card import Precision, Profile
from derain.errors import BackendError, ModelFileError, UsageError
from derain.files import file_sha256
from derain.models import resolve
from derain.runtime.engine import record as record_module
from derain.runtime.engine import store
from derain.runtime.engine.build import Built
from derain.runtime.engine.key import machine_differences, make_key
from derain.runtime.engine.lock import exclusive
from derain.runtime.engine.options import BuildOptions, narrowed_profile, require_dla_fits
from derain.runtime.engine.record import (
    SelfTest,
    engine_onnx,
    read_model_card,
    read_record,
    record_path,
    write_record,
)
from derain.runtime.engine.store import cache_folder, cache_path, look, obtain
from derain.sizes import parse_size

__all__ = ["builds"]
NARROW = Profile(min=(1, 48, 64), opt=(1, 48, 64), max=(1, 48, 64))


def test_an_engine_is_built_once(builds: Builds, tmp_path: Path) -> None:
    path, engine = model(tmp_path), tmp_path / "edge.engine"
    first = obtain(request(path), engine)
    again = obtain(request(path), engine)
    assert (first.built, again.built, builds.count) == (True, False, 1)
    assert again.plan == first.plan == engine.read_bytes()
    assert read_model_card(engine).profile == SIZES
    assert again.record.key is not None
    assert again.record.key.gpu == "Orin"
    assert not list(tmp_path.glob(".*"))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"toolkit": toolkit("10.13.3")}, r"built with tensorrt 10\.3\.0, and this machine has 10\.13\.3"),
    ({"driver": driver("Thor", (11, 0))}, r"built on Orin \(SM87\), and this machine has Thor \(SM110\)"),
    ({"driver": driver(cuda=(13, 0))}, r"a driver for CUDA 12\.6, and this one is for 13\.0"),
    ({"driver": driver(version="560.1")}, r"built with driver 540\.4\.0, and this machine has 560\.1"),
    ({"options": BuildOptions(profile=NARROW)}, r"takes frames from 16x16 to 128x96.*frames of 64x48 are asked for"),
    ({"options": BuildOptions(profile=SIZES, optimization_level=5)}, "optimization level was 3, and is to be 5"),
    ({"options": BuildOptions(profile=SIZES, dla_core=0)}, "dla core was none, and is to be 0"),
    ({"options": BuildOptions(profile=SIZES, version_compatible=True)}, "version compatible was off, and is to be on"),
    ({"card": card_of(profile=SIZES, precision=Precision(kind="float16"))}, "computes in float32.*asks for float16"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_what_changed_is_told_and_built_again(
    builds: Builds, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path, engine, said = model(tmp_path), tmp_path / "edge.engine", list[str]()
    obtain(request(path), engine)
    assert obtain(request(path, said, **change), engine).built
    assert len(said) == 1
    assert re.search(reason, said[0]), said
    assert not obtain(request(path, **change), engine).built
    assert builds.count == 2


def test_a_changed_model_is_noticed(builds: Builds, tmp_path: Path) -> None:
    path, engine, said = model(tmp_path), tmp_path / "edge.engine", list[str]()
    obtain(request(path), engine)
    save_model(path, blur=False, card=card_of(profile=SIZES))
    assert obtain(request(path, said), engine).built
    assert "the model file has changed" in said[0]


def test_every_part_of_the_key_tells_engines_apart() -> None:
    """The key: the model's bytes, precision, sizes, each option, TensorRT, GPU, compute capability, CUDA, driver."""

    def key(
        onnx: bytes = b"onnx", machine: Any = None, tools: Any = None, kind: Any = "float32", **options: Any
    ) -> Any:
        card = card_of(precision=Precision(kind=kind))
        return make_key(
            onnx, card, BuildOptions(**{"profile": SIZES, **options}), tools or toolkit(), machine or driver()
        )

    others = [
        key(b"other"),
        key(kind="int8"),
        key(profile=NARROW),
        key(workspace_mib=64),
        key(optimization_level=4),
        key(dla_core=0),
        key(hardware_compatible=True),
        key(version_compatible=True),
        key(capabilities=("SM86",)),
        key(tools=toolkit("10.3.1")),
        key(tools=toolkit(name="tensorrt-rtx")),
        key(machine=driver("Thor")),
        key(machine=driver(capability=(8, 9))),
        key(machine=driver(cuda=(12, 7))),
        key(machine=driver(version="541.0")),
    ]
    assert len({key(), *others}) == len(others) + 1
    tried = {
        name
        for other in others
        for name in BuildOptions.model_fields
        if getattr(other.options, name) != getattr(key().options, name)
    }
    assert tried == set(BuildOptions.model_fields)
    assert key() == key()


def test_a_record_of_before_drivers_were_noted_is_still_good(builds: Builds, tmp_path: Path) -> None:
    path, engine = model(tmp_path), tmp_path / "edge.engine"
    obtain(request(path), engine)
    document = json.loads(record_path(engine).read_text())
    del document["key"]["driver"]
    record_path(engine).write_text(json.dumps(document))
    assert not obtain(request(path), engine).built


def damage_cut(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-9])


def damage_flip(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)


def damage_foreign(engine: Path) -> None:
    engine.write_bytes(b"of some other program" * 40)


def damage_empty(engine: Path) -> None:
    engine.write_bytes(b"")


def damage_no_record(engine: Path) -> None:
    record_path(engine).unlink()


def damage_record_cut(engine: Path) -> None:
    record_path(engine).write_text(record_path(engine).read_text()[:-20])


def damage_record_field(engine: Path) -> None:
    document = json.loads(record_path(engine).read_text())
    document["plan_sha256"] = "x"
    record_path(engine).write_text(json.dumps(document))


def damage_record_newer(engine: Path) -> None:
    document = json.loads(record_path(engine).read_text())
    record_path(engine).write_text(json.dumps({**document, "schema_version": 2}))


DAMAGES = {
    damage_cut: "cut short",
    damage_flip: "another checksum",
    damage_foreign: "another checksum",
    damage_empty: "is empty",
    damage_no_record: "no record beside it",
    damage_record_cut: "is not JSON",
    damage_record_field: "not valid at plan_sha256",
    damage_record_newer: "schema version 2",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_recognised_before_tensorrt_sees_a_byte(builds: Builds, tmp_path: Path, damage: Any) -> None:
    path, engine, said = model(tmp_path), tmp_path / "edge.engine", list[str]()
    obtain(request(path), engine)
    damage(engine)
    with pytest.raises(ModelFileError, match=DAMAGES[damage]):
        look(engine, toolkit(), driver())
    assert obtain(request(path, said), engine).built
    assert DAMAGES[damage] in said[0]
    look(engine, toolkit(), driver())


def test_a_kill_between_plan_and_record_is_noticed(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, engine, said = model(tmp_path), tmp_path / "edge.engine", list[str]()
    obtain(request(path), engine)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record_module, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            obtain(request(path), engine, rebuild=True)
    assert obtain(request(path, said), engine).built
    assert "another checksum" in said[0]


def test_an_engine_that_fails_its_self_test_is_not_kept(builds: Builds, tmp_path: Path) -> None:
    def refuse(plan: bytes) -> SelfTest:
        raise BackendError("black")

    path, engine = model(tmp_path), tmp_path / "edge.engine"
    with pytest.raises(BackendError, match="black"):
        obtain(request(path, test=refuse), engine)
    assert not engine.exists()
    good = SelfTest(reference="ONNX Runtime", psnr=61.0, size=(1, 96, 128))
    assert obtain(request(path, test=lambda plan: good), engine).record.self_test == good
    assert read_record(engine).self_test == good


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_engine_that_cannot_be_kept_is_used_all_the_same(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store, "write_engine", full)
    found = obtain(request(model(tmp_path)), tmp_path / "edge.engine")
    assert found.path is None
    assert found.plan.startswith(b"plan 1")
    assert os.strerror(code) in found.notes[0]
    assert "is used, and built again next time" in found.notes[0]


def test_without_a_writable_cache_there_is_no_lock_and_that_is_said(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "file" / "cache"))
    found = obtain(request(model(tmp_path)), tmp_path / "edge.engine")
    assert found.path == tmp_path / "edge.engine"
    assert "could not be made" in found.notes[0]
    assert "could not be written" in found.notes[1]  # the timing cache


def test_timings_are_shared_by_models_of_one_machine_only(builds: Builds, tmp_path: Path) -> None:
    path = model(tmp_path)
    obtain(request(path), tmp_path / "a.engine")
    obtain(request(path), tmp_path / "b.engine")
    obtain(request(path, driver=driver("Thor", (11, 0))), tmp_path / "c.engine")
    assert builds.timings == [b"", b"timings 1", b""]


def _build_slowly(folder: str, ready: Any, results: Any) -> None:
    os.environ["DERAIN_CACHE"] = str(Path(folder) / "cache")
    count = Path(folder) / "count"

    def slow(onnx: bytes, *_: Any, **__: Any) -> Built:
        with count.open("a") as log:
            log.write("x")
        time.sleep(0.5)
        return Built(b"plan" * 100, 0.5, None, [])

    store.build_plan = slow  # type: ignore[assignment]
    ready.wait()
    results.put(obtain(request(Path(folder) / "edge.onnx"), Path(folder) / "edge.engine").built)


def test_two_processes_build_once(tmp_path: Path) -> None:
    model(tmp_path)
    context = multiprocessing.get_context("fork")
    ready, results = context.Event(), context.Queue()
    workers = [context.Process(target=_build_slowly, args=(str(tmp_path), ready, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    ready.set()
    assert sorted(results.get(timeout=30) for _ in workers) == [False, True]
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "x"


def _hold(path: str, held: Any) -> None:
    with exclusive(Path(path)):
        held.set()
        time.sleep(60)


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path / "lock"), held))
    holder.start()
    assert held.wait(30)
    told: list[bool] = []

    def waiting() -> None:
        told.append(True)
        holder.kill()

    with exclusive(tmp_path / "lock", waiting):
        assert told == [True]
    holder.join()


def test_compatible_engines_cross_machines_as_far_as_they_say() -> None:
    def key(**options: Any) -> Any:
        chosen = BuildOptions(profile=SIZES, **options)
        return make_key(b"onnx", card_of(), chosen, toolkit("10.13.3"), driver("A100", (8, 0), (12, 6)))

    newer, other = toolkit("10.16.0"), driver("L4", (8, 9), (13, 0))
    assert len(machine_differences(key(), newer, other)) == 3
    both = key(version_compatible=True, hardware_compatible=True)
    assert machine_differences(both, newer, other) == []
    assert machine_differences(both, toolkit("11.0.0"), other)
    assert machine_differences(both, toolkit("10.3.0"), other)
    assert machine_differences(both, newer, driver("T4", (7, 5), (13, 0)))
    assert machine_differences(key(), toolkit("10.13.3", "tensorrt-rtx"), driver("A100", (8, 0)))


def test_the_model_of_an_engine_is_found_beside_it_or_among_those_that_ship(builds: Builds, tmp_path: Path) -> None:
    path, engine = model(tmp_path), tmp_path / "edge.engine"
    record = obtain(request(path), engine).record
    assert engine_onnx(engine, record) == path
    save_model(path, blur=False, card=card_of(profile=SIZES))
    assert engine_onnx(engine, record) is None  # no longer the same model
    ours = resolve("nano")
    by_name = record.model_copy(update={"key": None, "onnx": "nano.onnx", "onnx_sha256": file_sha256(ours)})
    assert engine_onnx(engine, by_name) == ours
    other = by_name.model_copy(update={"onnx_sha256": "0" * 64})
    assert engine_onnx(engine, other) is None


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("tensorrt 10.3.0", "10.3.0.26", True),
        ("tensorrt 10.3.0", "10.3.1", False),
        ("tensorrt 10.3.0 or newer", "10.16.0", True),
        ("tensorrt 10.3.0 or newer", "11.0.0", False),
        ("tensorrt 10.16.0 or newer", "10.3.0", False),
        ("tensorrt-rtx 10.3.0", "10.3.0", False),
    ],
)
def test_engines_of_trtexec_belong_to_its_version(
    builds: Builds, tmp_path: Path, built: str, here: str, fits: bool
) -> None:
    engine = tmp_path / "edge.engine"
    obtain(request(model(tmp_path)), engine)
    ours = read_record(engine)
    write_record(engine, ours.model_copy(update={"key": None, "made_by": "trtexec", "toolkit": built}))
    if fits:
        assert look(engine, toolkit(here), driver())[0] == engine.read_bytes()
    else:
        with pytest.raises(ModelFileError, match=f"was built with {built}, and this machine has tensorrt {here}"):
            look(engine, toolkit(here), driver())


def test_engines_for_capabilities_belong_to_gpus_that_have_them() -> None:
    rtx = toolkit("1.7.1", "tensorrt-rtx")
    options = BuildOptions(profile=SIZES, capabilities=("SM86", "SM120"))
    key = make_key(b"onnx", card_of(), options, rtx, driver("A100", (8, 0)))
    assert key.gpu is None
    assert machine_differences(key, rtx, driver("RTX 3060", (8, 6))) == []
    assert "RTX 4090 is SM89" in machine_differences(key, rtx, driver("RTX 4090", (8, 9)))[0]


def test_cache_names_differ_by_what_must_not_share_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def name(onnx: bytes = b"onnx", version: str = "10.3.0", gpu: str = "Orin", level: int = 3) -> str:
        options = BuildOptions(profile=SIZES, optimization_level=level)
        return cache_path(tmp_path, card_of(), make_key(onnx, card_of(), options, toolkit(version), driver(gpu))).name

    assert name() == name(version="10.13.3")  # the old one is found, explained and replaced
    assert len({name(), name(b"other"), name(gpu="Thor"), name(level=5)}) == 4
    monkeypatch.delenv("DERAIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "derain" / "engines"


def test_the_model_itself_is_never_overwritten(builds: Builds, tmp_path: Path) -> None:
    path = model(tmp_path)
    with pytest.raises(UsageError, match="is the model itself"):
        obtain(request(path), path)


@pytest.mark.parametrize("text", ["", "640", "0x480", "640x480x0", "640x", "-1x4", "70000x4", "a x b"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        parse_size(text, "--size")


def test_profiles() -> None:
    assert narrowed_profile(SIZES, size="64x48") == NARROW
    assert narrowed_profile(SIZES, maximum="32x32").opt == (1, 32, 32)
    assert narrowed_profile(SIZES, minimum="100x96").opt == (1, 96, 100)
    with pytest.raises(UsageError, match="min <= opt <= max"):
        narrowed_profile(SIZES, minimum="64x48", optimum="32x32")
    with pytest.raises(UsageError, match="one size 64x48"):
        narrowed_profile(NARROW, size="32x32")
    with pytest.raises(UsageError, match="--size alone"):
        narrowed_profile(SIZES, size="32x32", maximum="64x64")
    with pytest.raises(UsageError, match="--size is '640'"):
        narrowed_profile(SIZES, size="640")


@pytest.mark.parametrize(
    ("kind", "profile", "problem"),
    [
        ("float16", NARROW, None),
        ("int8", NARROW, None),
        ("float32", NARROW, "--dla was given with a model in float32.*--fp16"),
        ("float16", SIZES, "--dla was given with several sizes"),
    ],
)
def test_what_an_accelerator_can_take(kind: Any, profile: Profile, problem: str | None) -> None:
    card = card_of(profile=SIZES, precision=Precision(kind=kind))
    require_dla_fits(card, BuildOptions(profile=profile))
    options = BuildOptions(profile=profile, dla_core=0)
    if problem is None:
        require_dla_fits(card, options)
    else:
        with pytest.raises(UsageError, match=problem):
            require_dla_fits(card, options)
