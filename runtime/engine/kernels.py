"""Kernels that TensorRT-RTX compiled for this GPU, kept so that the next start does not compile them again.

A TensorRT-RTX engine holds no finished kernels: they are compiled on the GPU that runs it, for each size of frame. What
is kept here is TensorRT-RTX's own runtime cache, behind a checksum, one file for each engine and machine.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from derain.files import atomic_path
from derain.runtime.engine.driver import Driver
from derain.runtime.engine.store import cache_folder
from derain.runtime.engine.toolkit import Toolkit

_log = logging.getLogger("derain.engine")
_DIGEST_BYTES = hashlib.sha256().digest_size
_MAX_BYTES = 256 << 20


class KernelStore:
    """One engine's compiled kernels on disk. A file that is damaged or cannot be written costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = b""

    def read(self) -> bytes:
        """What was kept; empty where there is nothing, or not the bytes that were written."""
        try:
            content = self.path.read_bytes() if self.path.stat().st_size <= _MAX_BYTES else b""
        except OSError:
            return b""
        digest, kernels = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(kernels).digest() != digest:
            _log.warning("'%s' is damaged: the kernels are compiled again", self.path)
            return b""
        self._kept = kernels
        return kernels

    def write(self, kernels: bytes) -> None:
        """Keep kernels in the place of those that were there, if they are others."""
        if kernels == self._kept:
            return
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_bytes(hashlib.sha256(kernels).digest() + kernels)
        except OSError as error:
            _log.warning(
                "'%s' could not be written (%s): the kernels are compiled again at the next start",
                self.path,
                error.strerror or error,
            )
            return
        self._kept = kernels


def kernel_store(plan: bytes, toolkit: Toolkit, driver: Driver) -> KernelStore:
    """The store of an engine on this machine: another engine, GPU, driver or TensorRT-RTX has another one."""
    gpu = driver.gpus[0] if driver.gpus else None
    machine = f"{toolkit.version}|{gpu}|{driver.cuda}|{driver.version}"
    name = hashlib.sha256(hashlib.sha256(plan).digest() + machine.encode()).hexdigest()[:16]
    return KernelStore(cache_folder() / f"kernels-{name}.cache")
