"""What processes that train together must agree on: draws and pictures are indexed in the global batch.

Each process holds an equal, contiguous part of every batch, in the order of the ranks. With these functions a run on
several processes follows a run on one with the same global batch. Random numbers for the batch as a whole (the places
of a contrastive loss, one noise map for all pictures) need nothing: every process draws the same.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """This process's rank, and how many processes train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def randn(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Noise N(0, 1) for this process's part of the batch, whose size is ``shape[0]``; on the generator's device.

    All processes must call it with equally seeded generators: each draws the noise of the whole batch and keeps its
    own rows.
    """
    rank, count = world()
    rows = shape[0]
    whole = torch.randn(rows * count, *shape[1:], generator=generator)
    return whole[rank * rows : (rank + 1) * rows]


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """The rows of all processes (B, ...) in the order of the ranks, (B * count, ...); no gradient flows through."""
    _, count = world()
    if count == 1:
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(count)]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def own_rows(rows: Tensor) -> Tensor:
    """This process's part of what :func:`gather` gave."""
    rank, count = world()
    part = len(rows) // count
    return rows[rank * part : (rank + 1) * part]
