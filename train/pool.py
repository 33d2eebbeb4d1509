"""The image pool of cycle GANs: a discriminator also sees fakes of earlier steps (Shrivastava et al., CVPR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from derain.train.parallel import gather, own_rows


class ImagePool(nn.Module):
    """Keeps ``size`` earlier pictures in buffers, so that a checkpoint holds them and a resumed run sees the same.

    Each picture that comes in is stored while the pool fills; then, with probability one half, it swaps places with a
    random stored one. Processes that train together all hold the one pool that a single process would have.
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
        """Fakes (B, C, h, w) in, as many out: themselves or earlier ones. Decisions come from the CPU ``generator``.

        Each process gives and gets its own part; their generators must be equally seeded.
        """
        if self.size == 0:
            return pictures
        out = gather(pictures.detach().to(self.images.dtype)).clone()
        swaps = torch.rand(len(out), generator=generator)
        places = torch.randint(self.size, (len(out),), generator=generator)
        filled = int(self.filled)
        for i in range(len(out)):
            if filled < self.size:
                self.images[filled] = out[i]
                filled += 1
            elif swaps[i] < 0.5:
                place = int(places[i])
                earlier = self.images[place].clone()
                self.images[place] = out[i]
                out[i] = earlier
        self.filled.fill_(filled)
        return own_rows(out)
