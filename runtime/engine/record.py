"""The record beside an engine: what the plan is, where it belongs, and the checksum that tells it is whole.

An engine file is the plain plan, as trtexec, Triton and the C++ runtime read it. Beside ``NAME.engine`` lies
``NAME.engine.json``. It is read before a byte of the plan reaches TensorRT, which trusts what it is given.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from derain.card import CARD_KEY, MAX_CARD_BYTES, ModelCard, parse_card, read_card
from derain.documents import parse_document
from derain.errors import ModelFileError
from derain.files import atomic_path, check_size, file_sha256
from derain.models import shipped
from derain.onnx_metadata import read_metadata
from derain.runtime.engine.key import EngineKey

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=1000)]
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
MAX_PLAN_BYTES = 8 << 30
_MAX_RECORD_BYTES = 2 * MAX_CARD_BYTES
_BUILD_AGAIN = "Build it again on this machine: derain build MODEL.onnx"


class SelfTest(BaseModel):
    """How a new engine's picture compared with the reference.

    Attributes:
        reference: what it was compared with.
        psnr: dB between the two results; None when they are equal or there was no reference.
        size: (batch, height, width) of the picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: Text
    psnr: float | None
    size: tuple[int, int, int]


class EngineRecord(BaseModel):
    """The content of the file beside an engine.

    Attributes:
        made_by: ``derain`` or ``trtexec``.
        plan_bytes, plan_sha256: of the whole engine file.
        card: the model card; None where it has to be read from ``onnx``.
        onnx: name of the model file, looked for beside the engine.
        key: None for engines of trtexec, about whose machine less is known.
        onnx_sha256: of the model file, where ``key`` does not tell.
        toolkit: name and version of the TensorRT that made it, where ``key`` does not tell.
        self_test: None until the engine was run on a picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    made_by: Literal["derain", "trtexec"]
    plan_bytes: Annotated[int, Field(ge=1, le=MAX_PLAN_BYTES)]
    plan_sha256: Sha256
    card: ModelCard | None = None
    onnx: Text | None = None
    key: EngineKey | None = None
    onnx_sha256: Sha256 | None = None
    toolkit: Text | None = None
    made: Text = ""
    seconds: float | None = None
    self_test: SelfTest | None = None

    @property
    def model_sha256(self) -> str | None:
        """SHA-256 of the model file the engine was built from; None where nobody wrote it down."""
        return self.key.onnx_sha256 if self.key is not None else self.onnx_sha256


def record_path(engine: Path) -> Path:
    """Where the record of an engine lies."""
    return engine.with_name(engine.name + ".json")


def is_engine(path: Path) -> bool:
    """Whether a file is meant as an engine, by its suffix: a plan has no marker that all versions share."""
    return path.suffix.lower() in ENGINE_SUFFIXES


def new_record(plan: bytes, key: EngineKey, card: ModelCard, onnx: str, seconds: float) -> EngineRecord:
    """The record of an engine that was just built. Its card states the sizes that the engine takes."""
    return EngineRecord(
        made_by="derain",
        plan_bytes=len(plan),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        card=card.model_copy(update={"profile": key.options.profile}),
        onnx=onnx,
        key=key,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
    )


def adopted(engine: Path, onnx: Path, card: ModelCard) -> EngineRecord:
    """The record of an engine that trtexec built by hand, on its owner's word that it is that model's.

    It says nothing of the machine: TensorRT refuses an engine of another one, and the self-test a wrong one.

    Raises:
        ModelFileError: the engine is missing, empty or too large.
    """
    size = check_size(engine, MAX_PLAN_BYTES, ModelFileError)
    return EngineRecord(
        made_by="trtexec",
        plan_bytes=size,
        plan_sha256=file_sha256(engine),
        card=card,
        onnx=onnx.name,
        onnx_sha256=file_sha256(onnx),
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def write_engine(engine: Path, plan: bytes, record: EngineRecord) -> None:
    """Write a plan and its record. A kill in between leaves a pair whose checksum does not match, which is noticed.

    Raises:
        OSError: the folder cannot be written, or the disk is full; what was there before is left.
    """
    with atomic_path(engine) as temporary:
        temporary.write_bytes(plan)
    write_record(engine, record)


def write_record(engine: Path, record: EngineRecord) -> None:
    """Write or replace the record of an engine.

    Raises:
        OSError: the folder cannot be written.
    """
    with atomic_path(record_path(engine)) as temporary:
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_record(engine: Path) -> EngineRecord:
    """Read the record of an engine.

    Raises:
        ModelFileError: there is none, or it is not one.
    """
    path = record_path(engine)
    if not path.exists():
        raise ModelFileError(
            f"'{engine}' has no record beside it",
            expected=f"'{path.name}', which derain build and its trtexec scripts write",
            fix="Copy both files together; or, if trtexec built it by hand: "
            f"derain build MODEL.onnx --adopt {engine.name}",
        )
    check_size(path, _MAX_RECORD_BYTES, ModelFileError)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"The record '{path}' cannot be read ({error})", fix=_BUILD_AGAIN) from error
    return parse_document(text, EngineRecord, f"The record '{path}'", ModelFileError, _BUILD_AGAIN)


def read_plan(engine: Path, record: EngineRecord) -> bytes:
    """The bytes of an engine, after its size and checksum were compared with the record.

    Raises:
        ModelFileError: missing, empty, cut short, or other bytes than the record describes.
    """
    size = check_size(engine, MAX_PLAN_BYTES, ModelFileError)
    if size < record.plan_bytes:
        raise ModelFileError(
            f"'{engine}' was cut short: it has {size} bytes", expected=f"{record.plan_bytes}", fix=_BUILD_AGAIN
        )
    plan = engine.read_bytes()
    if len(plan) != record.plan_bytes or hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise ModelFileError(
            f"'{engine}' is not the engine that its record describes: its {len(plan)} bytes have another checksum",
            fix=_BUILD_AGAIN,
        )
    return plan


def engine_card(engine: Path, record: EngineRecord | None = None) -> ModelCard:
    """The model card of an engine: in its record, or in the ONNX file that the record names.

    Raises:
        ModelFileError: neither has one.
    """
    record = record or read_record(engine)
    if record.card is not None:
        return record.card
    onnx = engine_onnx(engine, record)
    if onnx is None:
        raise ModelFileError(
            f"The record of '{engine}' holds no model card, and its model file '{record.onnx or '?'}' is not beside it",
            fix="Copy the .onnx file beside the engine, or write the script with derain build --script",
        )
    return read_card(onnx)


def engine_onnx(engine: Path, record: EngineRecord) -> Path | None:
    """The model file an engine was built from: beside it, or the shipped one, where it is still the same model."""
    if record.onnx is None:
        return None
    wanted = record.model_sha256
    paths = [engine.with_name(Path(record.onnx).name)]
    paths += [model.path for model in shipped().values() if model.sha256 == wanted]
    return next((path for path in paths if path.is_file() and wanted in (None, file_sha256(path))), None)


def read_model_card(path: Path) -> ModelCard:
    """The card of a model file, be it ONNX or an engine.

    Raises:
        ModelFileError: the file is missing, damaged, or without a card.
    """
    if is_engine(path):
        check_size(path, MAX_PLAN_BYTES, ModelFileError)
        return engine_card(path)
    return read_card(path)


def card_text(onnx: Path) -> str:
    """The card of an ONNX file as the JSON document it is, validated.

    Raises:
        ModelFileError: no valid card.
    """
    return parse_card(read_metadata(onnx).get(CARD_KEY, ""), str(onnx)).to_json()
