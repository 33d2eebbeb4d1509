"""What a system hands out for deployment, and all that export knows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class DeployableSpec:
    """What a later stage must know about the network; declared by the network, copied into the model card.

    Attributes:
        multiple_of: height and width must be multiples of this (the stride of the network's grid), in pixels.
        minimum: smallest height and width after padding, in pixels.
        receptive_field: side in pixels of the square that one output pixel depends on, whole-frame context aside;
            None when every pixel depends on the whole frame.
        tiling: ``sound`` tiles with overlap equal the whole frame; ``needs_context`` so do tiles that are given the
            whole frame's context; ``unsound`` they do not.
        attention: ``learned`` the map of an extractor; ``removed_rain`` the mean absolute difference between input
            and output, for systems that have no extractor.
        context_size: length of the whole-frame context vector; None when the network has none.
        context_reading: cell and places: the context takes statistics of square cells of so many pixels, at so many
            evenly spread places along each side, each interpolated between its two nearest cells. None when it reads
            frames in another way.
    """

    system: str
    variant: str
    multiple_of: int
    minimum: int
    receptive_field: int | None
    tiling: Literal["sound", "needs_context", "unsound"]
    tiling_reason: str
    attention: Literal["learned", "removed_rain"]
    context_size: int | None = None
    context_reading: tuple[int, int] | None = None


class Deployable(nn.Module, ABC):
    """A deraining network together with its attention extractor, ready to be traced.

    ``forward`` takes rainy frames, float32 (B, 3, H, W) RGB in [0, 1] with H and W multiples of ``spec.multiple_of``,
    and returns the derained frames, same shape, clamped to [0, 1], and the attention, float32 (B, 1, H, W) in [0, 1].
    """

    spec: DeployableSpec

    @abstractmethod
    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def attention_only(self, rainy: Tensor) -> Tensor:
        """The extractor alone: (B, 3, H, W) in [0, 1] to the attention (B, 1, H, W) in [0, 1]."""


class ContextDeployable(Deployable):
    """A deployable that looks at the whole frame through a small context vector, so that it can be tiled soundly."""

    @abstractmethod
    def frame_context(self, rainy: Tensor) -> Tensor:
        """Whole frames (B, 3, H, W) in [0, 1] to their context (B, ``spec.context_size``) float32."""

    @abstractmethod
    def with_context(self, rainy: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` on a tile, given the context of the frame that it was cut from."""

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        return self.with_context(rainy, self.frame_context(rainy))


class CellEstimate(NamedTuple):
    """What a :class:`CellDeployable` finds, on cells: of 16 pixels a side for the fog, of 4 for the rest.

    Attributes:
        maps: (B, 6, H/16, W/16): ``gain - 1`` of R, G, B, then ``offset`` of R, G, B.
        streaks: (B, 48, H/4, W/4): the rain, in the order of ``pixel_shuffle``.
        attention: (B, 16, H/4, W/4) in [0, 1], likewise.
    """

    maps: Tensor
    streaks: Tensor
    attention: Tensor


class CellDeployable(ContextDeployable):
    """A deployable that works on cells of 4x4 pixels and ends in a sum that can be computed there.

    The derained picture is ``rainy * gain + offset - streaks``, clamped, with gain and offset bilinearly interpolated
    from cells of 16 pixels. Export computes the sum cell by cell, which saves most of what is not convolution; the
    layers that touch pixels are named here, so that it can fold the frame's channel order and scale into them.
    """

    @abstractmethod
    def estimate(self, rainy: Tensor, context: Tensor) -> CellEstimate:
        """The parts of the sum; ``rainy`` is handed to the :meth:`picture_readers` only."""

    @abstractmethod
    def pooled_context(self, pooled: Tensor) -> Tensor:
        """``frame_context``, given mean, maximum and minimum of R, G, B over cells of 4x4: (B, 9, H/4, W/4)."""

    @abstractmethod
    def picture_readers(self) -> list[nn.Conv2d]:
        """Convolutions of stride 4 whose input is the picture."""

    @abstractmethod
    def pooled_reader(self) -> nn.Conv2d:
        """The convolution whose input is the thumbnail of nine channels."""

    @abstractmethod
    def streak_writer(self) -> nn.Conv2d:
        """The convolution whose result is the streaks, as it is."""
