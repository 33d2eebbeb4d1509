"""The right engine for a model file on this machine: beside it, from the cache, or built now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from derain.card import ModelCard, read_card
from derain.errors import BackendError, ModelFileError
from derain.files import file_sha256
from derain.runtime.backends.engine_api import PlanError
from derain.runtime.engine.driver import Driver
from derain.runtime.engine.key import make_key
from derain.runtime.engine.options import BuildOptions
from derain.runtime.engine.record import EngineRecord, SelfTest, engine_onnx, is_engine, read_record
from derain.runtime.engine.selftest import Runs, self_test
from derain.runtime.engine.store import Build, Engine, cache_folder, cache_path, look, obtain, tested
from derain.runtime.engine.toolkit import Toolkit

_log = logging.getLogger("derain.engine")
OpenPlan = Callable[[bytes], AbstractContextManager[Runs]]


def find_engine(path: Path, card: ModelCard, toolkit: Toolkit, driver: Driver, open_plan: OpenPlan) -> Engine:
    """An engine that is whole, belongs to this machine, was accepted by TensorRT, and passed its self-test.

    Args:
        path: an ONNX file, or an engine.
        open_plan: deserialises a plan for running; raises :class:`PlanError` when TensorRT refuses it.

    Raises:
        ModelFileError: an engine that cannot be used, and no model file from which to build another.
        BackendError: the engine cannot be built, or fails its self-test.
    """
    if is_engine(path):
        return _given(path, card, toolkit, driver, open_plan)
    onnx_sha256 = file_sha256(path)
    beside = path.with_suffix(".engine")
    if beside.exists():
        try:
            record = read_record(beside)
            if record.model_sha256 not in (None, onnx_sha256):
                raise ModelFileError(f"'{beside}' was built from another model file than '{path}'")
            return _checked(beside, path, card, toolkit, driver, open_plan)
        except (ModelFileError, PlanError) as error:
            _log.warning("%s", error.found)
    return _from_cache(path, card, default_options(card, toolkit, driver), toolkit, driver, open_plan)


def default_options(card: ModelCard, toolkit: Toolkit, driver: Driver) -> BuildOptions:
    """What an engine is built for when nobody says: the card's sizes, this machine's GPU."""
    ahead = toolkit.ahead_of_time and bool(driver.gpus)
    return BuildOptions(profile=card.profile, capabilities=(driver.gpus[0].sm,) if ahead else ())


def run_self_test(
    plan: bytes, card: ModelCard, options: BuildOptions | None, onnx: Path | None, toolkit: Toolkit, open_plan: OpenPlan
) -> SelfTest:
    """Open a plan and run the fixed picture through it; see :func:`derain.runtime.engine.selftest.self_test`."""
    profile = options.profile if options is not None else card.profile
    with open_plan(plan) as engine:
        return self_test(engine, card, profile, onnx, str(toolkit))


def _given(path: Path, card: ModelCard, toolkit: Toolkit, driver: Driver, open_plan: OpenPlan) -> Engine:
    """The engine the user named; where it does not fit, another one from the model beside it."""
    record: EngineRecord | None = None
    try:
        record = read_record(path)
        return _checked(path, engine_onnx(path, record), card, toolkit, driver, open_plan)
    except (ModelFileError, PlanError) as error:
        onnx = engine_onnx(path, record) if record is not None else None
        if onnx is None:
            raise
        _log.warning("%s", error.found)
        options = default_options(read_card(onnx), toolkit, driver)
        if record is not None and record.key is not None:
            options = record.key.options.model_copy(update={"capabilities": options.capabilities})
        return _from_cache(onnx, read_card(onnx), options, toolkit, driver, open_plan)


def _checked(
    path: Path, onnx: Path | None, card: ModelCard, toolkit: Toolkit, driver: Driver, open_plan: OpenPlan
) -> Engine:
    plan, record = look(path, toolkit, driver)
    engine = Engine(path, plan, record, built=False)
    if record.self_test is not None:
        with open_plan(plan):
            return engine
    options = record.key.options if record.key is not None else None
    return tested(engine, lambda bytes_: run_self_test(bytes_, card, options, onnx, toolkit, open_plan))


def _from_cache(
    onnx: Path, card: ModelCard, options: BuildOptions, toolkit: Toolkit, driver: Driver, open_plan: OpenPlan
) -> Engine:
    key = make_key(onnx.read_bytes(), card, options, toolkit, driver)
    path = cache_path(cache_folder(), card, key)
    if not path.exists():
        _log.warning("Building the engine of '%s' for this GPU; this takes minutes, once", onnx.name)
    build = Build(
        onnx,
        card,
        options,
        toolkit,
        driver,
        test=lambda plan: run_self_test(plan, card, options, onnx, toolkit, open_plan),
        say=lambda text: _log.warning("%s", text),
    )
    engine = obtain(build, path)
    if not engine.built:
        try:
            with open_plan(engine.plan):
                pass
        except PlanError as error:
            _log.warning("%s It is built again.", error)
            engine = obtain(build, path, rebuild=True)
    for note in engine.notes:
        _log.warning("%s", note)
    if engine.record.self_test is None:
        raise BackendError(f"The engine of '{onnx}' was not tested")
    return engine
