"""The image pool of cycle GANs: a discriminator also sees fakes of earlier steps (Shrivastava et al., CVPR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Keeps ``size`` earlier pictures in buffers, so that a checkpoint holds them and a resumed run sees the same.

    Each picture that comes in is stored while the pool fills; then, with probability one half, it swaps places with a
    random stored one.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes (B, C, h, w) in, as many out: themselves or earlier ones. Decisions come from the CPU ``generator``."""
        if self.size == 0:
            return pictures
        swaps = torch.rand(len(pictures), generator=generator)
        places = torch.randint(self.size, (len(pictures),), generator=generator)
        out = pictures.detach().clone()
        filled = int(self.filled)
        for i in range(len(pictures)):
            if filled < self.size:
                self.images[filled] = out[i]
                filled += 1
            elif swaps[i] < 0.5:
                place = int(places[i])
                earlier = self.images[place].clone()
                self.images[place] = out[i]
                out[i] = earlier
        self.filled.fill_(filled)
        return out
