"""The form of messages: found, expected, what to do."""

from __future__ import annotations

import pytest

from derain import errors
from derain.errors import DerainError, MissingDependencyError, UsageError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DerainError("'a.onnx' is empty"), "'a.onnx' is empty."),
        (DerainError("Size 3.", expected="4", fix="Use 4."), "Size 3. Expected 4. Use 4."),
        (
            MissingDependencyError("onnx", needed_for="Export", extra="export"),
            "Export needs the package 'onnx', which is not installed. Run: pip install \"derain[export]\".",
        ),
        (
            MissingDependencyError("gi", needed_for="Preview"),
            "Preview needs the package 'gi', which is not installed. Run: pip install gi.",
        ),
    ],
)
def test_message(error: DerainError, message: str) -> None:
    assert str(error) == message


def test_exit_codes() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, DerainError)]
    assert len(classes) > 5
    assert {item.__name__ for item in classes if item.exit_code == 2} == {"UsageError"}
    assert all(item.exit_code == 1 for item in classes if item is not UsageError)
