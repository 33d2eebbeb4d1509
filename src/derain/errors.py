"""The one exception hierarchy of derain.

Every error a user can cause is a :class:`DerainError`. It tells three things: what was found, what was expected, and
what to do next. The command line prints it without a traceback and exits with its ``exit_code``.
"""

from __future__ import annotations


class DerainError(Exception):
    """Base of every error derain raises on purpose.

    Args:
        found: what was found, with the value or file seen; a full clause without a final stop.
        expected: what would have been right.
        fix: what to do next.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
        parts = [found.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected {expected.rstrip('.')}.")
        if fix:
            parts.append(fix.rstrip(".") + ".")
        super().__init__(" ".join(parts))


class UsageError(DerainError):
    """The command or call itself was wrong: an option, a combination, a name that does not exist."""

    exit_code = 2


class MissingDependencyError(DerainError):
    """A package that an optional part needs is not installed."""

    def __init__(self, package: str, *, needed_for: str, extra: str | None = None) -> None:
        install = f'pip install "derain[{extra}]"' if extra else f"pip install {package}"
        super().__init__(f"{needed_for} needs the package '{package}', which is not installed", fix=f"Run: {install}")
        self.package = package


class FrameError(DerainError):
    """A picture or frame cannot be used: unreadable, of a wrong shape or dtype, too small or too large."""


class MediaError(DerainError):
    """A video, camera or folder of pictures cannot be read or written."""


class ModelFileError(DerainError):
    """A model file is missing, damaged, without a card, or of another version."""


class BackendError(DerainError):
    """An inference backend is absent, refused the model, or failed while running."""


class DataError(DerainError):
    """Training or evaluation data cannot be used."""


class CheckpointError(DerainError):
    """A checkpoint is missing, damaged, or belongs to another system."""


class TrainingError(DerainError):
    """Training stopped: not a number, or a collapse of the kind the message names."""


class CalibrationError(DerainError):
    """A model could not be calibrated, or not without losing more quality than was allowed."""


class ExportError(DerainError):
    """A checkpoint could not be turned into an ONNX file that equals it."""
