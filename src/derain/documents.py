"""JSON documents from outside, read against a schema; every refusal is one sentence that says where and why."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from derain.errors import DerainError

Document = TypeVar("Document", bound=BaseModel)


def first_problem(error: ValidationError) -> str:
    """``key.inner: what is wrong with it``, of the first field that does not fit."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg']}"


def parse_document(
    text: str | bytes, kind: type[Document], title: str, wrong: type[DerainError], fix: str, newest: int = 1
) -> Document:
    """Validate a document that has a ``schema_version``.

    Args:
        text: UTF-8; its size was checked by whoever read it.
        kind: the schema.
        title: what it is and where it came from, for messages: ``The model card in 'edge.onnx'``.
        wrong: the error to raise.
        fix: what to do about a damaged one.
        newest: the newest schema version known.

    Raises:
        wrong: not JSON, of a newer derain, or not of the schema.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong(f"{title} is not JSON ({error})", fix=fix) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > newest:
        raise wrong(
            f"{title} has schema version {version}",
            expected=f"{newest} or older",
            fix="It was made by a newer derain: update with pip install --upgrade derain",
        )
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise wrong(f"{title} is not valid at {first_problem(error)}", fix=fix) from error
