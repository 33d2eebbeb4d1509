"""Writing files so that a kill leaves the old file or the new one, and checking files before they are read."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from derain.errors import DerainError, UsageError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, it takes the place of ``path``.

    The temporary name is hidden and has the same suffix, so writers that choose a format by suffix work. Missing parent
    folders are made. Whatever ends the block early (an exception, ``KeyboardInterrupt``) removes the temporary file and
    leaves ``path`` as it was; so does a block that wrote nothing. A symbolic link is written through.

    Raises:
        UsageError: ``path`` is a folder or a device.
        OSError: the folder cannot be made or written.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        # Replacing a device such as /dev/null would remove it from the system.
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise UsageError(f"Output '{path}' is {kind}", expected="the name of a file to write")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        yield temporary
        if temporary.exists():
            _flush_to_disk(temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Without this a power cut just after the rename could leave an empty file under the final name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in blocks.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_size(path: str | Path, limit_bytes: int, error: type[DerainError] = DerainError) -> int:
    """The size of a file in bytes, after making sure that it exists, is a file, and is neither empty nor too large.

    Raises:
        DerainError: of the class ``error``, naming the file and the size found.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as cause:
        raise error(f"'{path}' cannot be opened ({cause.strerror})", fix="Check the path") from cause
    if not path.is_file():
        raise error(f"'{path}' is not a file", expected="a regular file")
    if size == 0:
        raise error(f"'{path}' is empty (0 bytes)", fix="Copy or create the file again")
    if size > limit_bytes:
        raise error(f"'{path}' has {size} bytes", expected=f"at most {limit_bytes} bytes")
    return size
