"""Batches from worker processes to the training loop, and what goes wrong there in one line."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset

from derain.errors import DerainError
from derain.train.data.batches import StepBatches, seed_worker
from derain.train.systems.base import Batch

_AHEAD = 4
"""Batches that each worker has ready."""


class _Guarded(Dataset["Batch | DerainError"]):
    """A worker's error handed over as an item: raised in the worker, it would come back as a traceback of torch's."""

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, item: int) -> Batch | DerainError:
        try:
            return self._batches[item]
        except DerainError as error:
            return error


def load(batches: StepBatches, first: int, workers: int, *, pin: bool) -> Iterator[Batch]:
    """Items ``first``, ``first + 1``, ... in order.

    Args:
        workers: processes that make them; 0 makes them here, when they are asked for.
        pin: into page-locked memory, from which a GPU copies while it works.

    Raises:
        DerainError: as the item's making raised it, in whichever process.
    """
    loader = DataLoader(
        _Guarded(batches),
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=seed_worker,
        pin_memory=pin,
    )
    for item in loader:
        if isinstance(item, DerainError):
            raise item
        yield item
