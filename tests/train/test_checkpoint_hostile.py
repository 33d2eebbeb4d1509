"""Whatever bytes a file holds, a checkpoint that is none gets one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from derain.errors import CheckpointError
from derain.train.checkpoint import read_checkpoint


@pytest.mark.parametrize(
    "content",
    [b"root:x:0:0:root:/root:/bin/bash\n", b"PK\x03\x04", b"\x80\x02.", b"(lp0\n", b"q", bytes(64)],
    ids=["text", "zip", "pickle", "list", "letter", "zeros"],
)
def test_bytes_that_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.ckpt"):
        read_checkpoint(path)
