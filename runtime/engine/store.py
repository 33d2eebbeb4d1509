"""Engines on disk that cannot lie: found, checked, explained, rebuilt, kept."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from derain.card import ModelCard
from derain.errors import ModelFileError, UsageError
from derain.files import atomic_path
from derain.runtime.engine.build import build_plan
from derain.runtime.engine.driver import Driver
from derain.runtime.engine.key import EngineKey, build_differences, machine_differences, make_key
from derain.runtime.engine.lock import exclusive
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.progress import Report
from derain.runtime.engine.record import (
    EngineRecord,
    SelfTest,
    new_record,
    read_plan,
    read_record,
    record_path,
    write_engine,
    write_record,
)
from derain.runtime.engine.toolkit import Toolkit, version_numbers

Test = Callable[[bytes], SelfTest]
Say = Callable[[str], None]
_MAX_TIMING_CACHE = 256 << 20


@dataclass(frozen=True)
class Engine:
    """A checked engine.

    Attributes:
        path: where it lies; None when it could not be kept.
        built: whether it was built just now.
        notes: sentences for the user: why it was rebuilt, what could not be kept.
    """

    path: Path | None
    plan: bytes
    record: EngineRecord
    built: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Build:
    """What to build with: everything about this machine and this build but the place on disk.

    Attributes:
        test: runs a new engine on the fixed picture and raises when it differs; None where no engine can run.
        report: progress, see :data:`derain.runtime.engine.progress.Report`.
        say: for one-line news while it goes on.
    """

    model: Path
    card: ModelCard
    options: BuildOptions
    toolkit: Toolkit
    driver: Driver
    test: Test | None = None
    report: Report | None = None
    say: Say = lambda text: None
    cancelled: Callable[[], bool] = lambda: False


def cache_folder() -> Path:
    """Where engines are kept: ``$DERAIN_CACHE``, else the user's cache folder."""
    if "DERAIN_CACHE" in os.environ:
        return Path(os.environ["DERAIN_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "derain" / "engines"


def cache_path(folder: Path, card: ModelCard, key: EngineKey) -> Path:
    """Name of an engine in the cache.

    Model, options and GPU are in the name. TensorRT and driver are not: when they change, the old engine is found,
    its reason to go is told, and the new one takes its place.
    """
    options = hashlib.sha256(key.options.model_dump_json().encode()).hexdigest()[:8]
    gpu = re.sub(r"[^a-z0-9]+", "-", (key.gpu or "any").lower()).strip("-")[:40]
    name = re.sub(r"[^\w.-]+", "-", card.name)[:60] or "model"
    return folder / f"{name}-{card.precision.kind}-{key.onnx_sha256[:8]}-{options}-{gpu}-{key.toolkit}.engine"


def obtain(build: Build, path: Path, *, rebuild: bool = False) -> Engine:
    """The engine at ``path``, built when there is none that fits. Two processes do not build it twice.

    Args:
        path: where it is kept. Where that cannot be written, the engine is built and used all the same.
        rebuild: build even when there is one.

    Raises:
        ModelFileError: the model cannot be read.
        BackendError: it cannot be built, or fails its self-test.
        UsageError: the options do not fit this machine, or ``path`` is the model itself.
    """
    onnx = _read_model(build.model)
    if path.exists() and path.samefile(build.model):
        raise UsageError(f"The output '{path}' is the model itself", expected="a name such as model.engine")
    key = make_key(onnx, build.card, build.options, build.toolkit, build.driver)
    notes: list[str] = []
    with _locked(path, build.say, notes):
        if not rebuild:
            found = _existing(path, key, build)
            if found is not None:
                return found
        return _build(onnx, key, path, build, notes)


def look(path: Path, toolkit: Toolkit, driver: Driver) -> tuple[bytes, EngineRecord]:
    """Read an engine that exists, after checking that it is whole and belongs to this machine.

    Raises:
        ModelFileError: no record, damaged, or of another machine; the message says how.
    """
    record = read_record(path)
    if record.key is not None:
        reasons = machine_differences(record.key, toolkit, driver)
        if reasons:
            raise ModelFileError(
                f"'{path}' does not fit this machine: {'; '.join(reasons)}", fix="Build it here with derain build"
            )
    elif record.toolkit is not None and not _toolkit_fits(record.toolkit, toolkit):
        raise ModelFileError(
            f"'{path}' was built with {record.toolkit}, and this machine has {toolkit.name} {toolkit.version}",
            fix="Build it here with derain build, or with its script again",
        )
    return read_plan(path, record), record


def tested(engine: Engine, test: Test) -> Engine:
    """The engine after the self-test that its record lacks, which is then written to it.

    Raises:
        BackendError: it fails.
    """
    record = engine.record.model_copy(update={"self_test": test(engine.plan)})
    notes = list(engine.notes)
    if engine.path is not None:
        try:
            write_record(engine.path, record)
        except OSError as error:
            notes.append(_not_kept(record_path(engine.path), error))
    return Engine(engine.path, engine.plan, record, engine.built, notes)


def _toolkit_fits(built: str, toolkit: Toolkit) -> bool:
    """Whether an engine of trtexec runs here. It tells three numbers of its version: ``tensorrt 10.3.0``."""
    name, _, rest = built.partition(" ")
    version, _, newer = rest.partition(" ")
    then, here = version_numbers(version)[:3], version_numbers(toolkit.version)[:3]
    same_major = then[:1] == here[:1]
    return name == toolkit.name and (then == here or (newer == "or newer" and same_major and then <= here))


def _read_model(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"'{path}' cannot be read ({error.strerror})", fix="Check the path") from error


def _existing(path: Path, key: EngineKey, build: Build) -> Engine | None:
    """The engine at ``path`` if it is the right one; else it is said why not."""
    if not path.exists():
        return None
    try:
        plan, record = look(path, build.toolkit, build.driver)
        if record.key is None:
            raise ModelFileError(f"'{path}' was built by {record.made_by}, whose options are not known")
        reasons = build_differences(record.key, key)
        if reasons:
            raise ModelFileError(f"'{path}' is not the engine asked for: {'; '.join(reasons)}")
    except ModelFileError as error:
        build.say(f"{error.found}. It is built again.")
        return None
    return Engine(path, plan, record, built=False)


def _build(onnx: bytes, key: EngineKey, path: Path, build: Build, notes: list[str]) -> Engine:
    timings = timing_path(key)
    built = build_plan(
        onnx,
        build.card,
        build.options,
        build.toolkit,
        timing_cache=_read_timings(timings),
        report=build.report,
        cancelled=build.cancelled,
    )
    notes += [f"{build.toolkit} warns: {text}" for text in built.warnings[:3]]
    record = new_record(built.plan, key, build.card, build.model.name, built.seconds)
    if build.test is not None:
        record = record.model_copy(update={"self_test": build.test(built.plan)})
    try:
        write_engine(path, built.plan, record)
    except OSError as error:
        notes.append(_not_kept(path, error))
        return Engine(None, built.plan, record, built=True, notes=notes)
    if built.timing_cache is not None:
        try:
            with atomic_path(timings) as temporary:
                temporary.write_bytes(built.timing_cache)
        except OSError as error:
            notes.append(_not_kept(timings, error))
    return Engine(path, built.plan, record, built=True, notes=notes)


@contextmanager
def _locked(path: Path, say: Say, notes: list[str]) -> Iterator[None]:
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    lock = cache_folder() / "locks" / f"{name}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(lock, lambda: say(f"Another process builds '{path}'; waiting for it")))
        except OSError as error:
            notes.append(
                f"'{lock}' could not be made ({error.strerror}): another process may build the engine as well."
            )
        yield


def timing_path(key: EngineKey) -> Path:
    """Where kernel timings are kept: shared by all models of one machine and TensorRT, as nothing else can use them."""
    machine = f"{key.toolkit_version}|{key.gpu}|{key.capability}|{key.cuda}"
    return cache_folder() / f"timings-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.cache"


def _read_timings(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size <= _MAX_TIMING_CACHE else b""
    except OSError:
        return b""


def _not_kept(path: Path, error: OSError) -> str:
    return f"'{path}' could not be written ({error.strerror or error}): the engine is used, and built again next time."
