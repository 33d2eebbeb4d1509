"""Atomic writing: the old file or the new one, nothing between and nothing left over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from derain.errors import DataError, DerainError, UsageError
from derain.files import atomic_path, check_size


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_replaces_on_success(tmp_path: Path) -> None:
    target = tmp_path / "model.int8.onnx"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".onnx"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["model.int8.onnx"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "clip.mp4"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["clip.mp4"]


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png"):
        pass
    assert names(tmp_path) == []


def test_makes_parent_folders_and_keeps_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "a.txt"
    with atomic_path(str(target)) as temporary:
        temporary.write_text("x")
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert target.stat().st_mode == plain.stat().st_mode  # not the 0600 of tempfile


def test_writes_through_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.bin", tmp_path / "link.bin"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 240 + ".png")
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    assert target.exists()


def test_refuses_folders_and_devices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("must not be entered")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not a regular file"), atomic_path(pipe):
        pytest.fail("must not be entered")
    assert pipe.is_fifo()


def test_check_size(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    with pytest.raises(DerainError, match="No such file"):
        check_size(file, 10)
    file.write_bytes(b"")
    with pytest.raises(DerainError, match=r"empty \(0 bytes\)"):
        check_size(file, 10)
    file.write_bytes(b"x" * 10)
    assert check_size(file, 10) == 10
    with pytest.raises(DataError, match=r"10 bytes\. Expected at most 9 bytes"):
        check_size(file, 9, DataError)
    with pytest.raises(DerainError, match="not a file"):
        check_size(tmp_path, 10**9)
