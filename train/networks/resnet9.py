"""DCD-GAN's generator: nine residual blocks on the 1/4 grid, InstanceNorm, resampling that does not alias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.antialias import BlurDown, blur_up, instance_norm
from derain.train.networks.blocks import conv3, widen

_LAST_TAPPED_BLOCK = 5


def _norm_relu(x: Tensor) -> Tensor:
    return F.relu(instance_norm(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3)
        self.second = nn.Conv2d(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = _norm_relu(self.first(_reflect(x, 1)))
        return x + instance_norm(self.second(_reflect(h, 1)))


class Resnet9(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1], H and W multiples of 4, to the same, in [0, 1] by a tanh.

    11.378 M parameters and 977.3 kMAC per pixel at width 64. The features that the contrastive loss looks at are the
    authors' ``nce_layers`` 4, 8, 12 and 16: the two downward convolutions before their normalisation, blocks 1 and 5.
    """

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        w = width
        self.first = nn.Conv2d(3, w, 7)
        self.down1 = conv3(w, 2 * w)
        self.blur1 = BlurDown(2 * w)
        self.down2 = conv3(2 * w, 4 * w)
        self.blur2 = BlurDown(4 * w)
        self.blocks = nn.ModuleList(_Block(4 * w) for _ in range(blocks))
        self.up1 = conv3(4 * w, 2 * w)
        self.up2 = conv3(2 * w, w)
        self.last = nn.Conv2d(w, 3, 7)
        self.tapped = min(_LAST_TAPPED_BLOCK, blocks)
        self.tap_channels = [2 * w, 4 * w, 4 * w, 4 * w]

    def encode(self, picture: Tensor) -> list[Tensor]:
        """The tapped features, finest first; ``decode`` goes on from the last."""
        x = _norm_relu(self.first(_reflect(picture * 2 - 1, 3)))
        fine = self.down1(x)
        middle = self.down2(self.blur1(_norm_relu(fine)))
        first = self.blocks[0](self.blur2(_norm_relu(middle)))
        h = first
        for block in self.blocks[1 : self.tapped]:
            h = block(h)
        return [fine, middle, first, h]

    def decode(self, features: list[Tensor], picture: Tensor) -> Tensor:
        """The picture that ``features`` lead to; ``picture`` itself is not looked at again."""
        del picture
        h = features[-1]
        for block in self.blocks[self.tapped :]:
            h = block(h)
        h = _norm_relu(self.up1(blur_up(h)))
        h = _norm_relu(self.up2(blur_up(h)))
        out: Tensor = torch.tanh(widen(self.last(_reflect(h, 3)))) * 0.5 + 0.5
        return out

    def forward(self, picture: Tensor) -> Tensor:
        return self.decode(self.encode(picture), picture)


def _reflect(x: Tensor, margin: int) -> Tensor:
    return F.pad(x, (margin, margin, margin, margin), mode="reflect")
