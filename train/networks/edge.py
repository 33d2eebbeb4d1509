"""ACGF at edge size: an attention extractor that guides a generator on the 1/4 grid (SYSTEMS.md 5.1, 5.2, 5.8).

Both work on cells of 4x4 pixels. The stem is a convolution of stride 4: with a 12x12 kernel it is exactly a
pixel-unshuffle followed by a 3x3 convolution, without the transposes that TensorRT and the CPU pay for.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from derain.train.deployable import CellDeployable, CellEstimate, DeployableSpec
from derain.train.networks.blocks import (
    LEAK,
    MinimalGatedStage,
    ResidualStage,
    conv3,
    init_he,
    local_discrepancy,
    widen,
    zero_init,
)
from derain.train.networks.context import READING, FrameContext, GlobalSimilarity, shrink_pooled, thumbnail
from derain.train.networks.reparam import Reparam

GRID = 4
_FOG_POOL = 4
FOG_CELL = GRID * _FOG_POOL
_ATTENTION = GRID * GRID
GAIN_LOG_RANGE = (-1.0, 3.0)


class EdgeConfig(BaseModel):
    """Size of the network. Widths are channels on the 1/4 grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor_width: int = Field(default=32, ge=8, le=256)
    extractor_stages: int = Field(default=4, ge=1, le=16)
    extractor_stage: Literal["gated", "residual"] = "gated"
    generator_width: int = Field(default=64, ge=8, le=256)
    generator_stages: int = Field(
        default=2, ge=0, le=16, description="on the 1/4 grid; 0: the stages on the 1/8 grid are all there is"
    )
    generator_weights: Literal["shared", "own"] = Field(
        default="shared", description="shared: the generator's stages are turns of one; own: each has its weights"
    )
    coarse_width: int = Field(
        default=0, ge=0, le=512, description="channels on the 1/8 grid, where long streaks fit; 0: no such grid"
    )
    coarse_stages: int = Field(default=1, ge=1, le=8)
    stem_kernel: Literal[4, 6, 8, 12] = 12
    trunk: Literal["own", "shared"] = Field(
        default="own", description="shared: the generator continues from the extractor's features, without a stem"
    )
    context_width: int = Field(
        default=32, ge=8, le=256, multiple_of=2, description="channels of the whole-frame context, on its thumbnail"
    )
    fog_width: int = Field(default=32, ge=4, le=128)
    reparam: Reparam = Field(
        default="none", description="stages train with repvgg or ecbsr branches, which are folded for deployment"
    )

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        if not self.generator_stages and not self.coarse_width:
            raise ValueError("generator_stages = 0 needs a coarse_width: the generator would have no stage at all")
        return self


def stem(width: int, kernel: int) -> nn.Conv2d:
    """RGB to the 1/4 grid in one convolution of stride 4."""
    return nn.Conv2d(3, width, kernel, stride=GRID, padding=(kernel - GRID) // 2)


class EdgeExtractor(nn.Module):
    """The attention extractor (ARFE) at edge size.

    Recurrent gated stages, then global self-similarity against the frame's tokens and local discrepancy, then the
    rain-fog map as 16 values a cell, which pixel-shuffle to one value a pixel.
    """

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        width = config.extractor_width
        self.repeats = config.extractor_stages
        self.stem = stem(width, config.stem_kernel)
        stage = MinimalGatedStage if config.extractor_stage == "gated" else ResidualStage
        self.stage = stage(width, config.reparam)
        self.similarity = GlobalSimilarity(width)
        self.discrepancy = nn.Conv2d(width, width, 1)
        self.head = conv3(width, _ATTENTION)
        for part in (self.stem, self.stage, self.discrepancy, self.head):
            init_he(part)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -1.5)  # starts near "no rain", where the hard sigmoid still has a slope

    def forward(self, rainy: Tensor, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) to the attention (B, 16, H/4, W/4) in [0, 1] and the features (B, width, H/4, W/4)."""
        h0 = self.stem(rainy)
        h = h0
        for _ in range(self.repeats):
            h = self.stage(h, h0)
        fused = h + self.similarity(h, similarity) + self.discrepancy(local_discrepancy(h))
        return F.hardsigmoid(self.head(fused)), fused


class CoarseStages(nn.Module):
    """Residual stages on the 1/8 grid, and back: four times the channels for the same cost, and twice the reach.

    What they add is zero at the start.
    """

    def __init__(self, width: int, coarse_width: int, repeats: int, reparam: Reparam) -> None:
        super().__init__()
        self.repeats = repeats
        self.down = conv3(width, coarse_width, stride=2)
        self.stage = ResidualStage(coarse_width, reparam)
        self.up = nn.Conv2d(coarse_width, 4 * width, 1)
        init_he(self)
        zero_init(self.up)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width, H, W), H and W even, to the same shape."""
        c0 = F.leaky_relu(self.down(h), LEAK)
        c = c0
        for _ in range(self.repeats):
            c = self.stage(c, c0)
        return F.pixel_shuffle(self.up(c), 2)


class EdgeGenerator(nn.Module):
    """The deraining generator (DRFN) at edge size: ``J = I * gain + b - S``.

    ``gain`` and ``b`` invert the degradation model: with ``I = T (B + S) + (1 - T) A`` the clean picture is
    ``I / T - (1 - T) A / T - S``, so gain = 1/T and b = -(1 - T) A / T. They come from a local fog head on cells of 16
    pixels plus the whole frame's affine map; S comes from the tail. All start at zero: the network starts as identity.
    """

    def __init__(self, config: EdgeConfig) -> None:
        super().__init__()
        width = config.generator_width
        self.repeats = config.generator_stages
        self.stem = stem(width, config.stem_kernel) if config.trunk == "own" else None
        if self.stem is None and width != config.extractor_width:
            self.join: nn.Conv2d | None = nn.Conv2d(config.extractor_width, width, 1)
        else:
            self.join = None
        self.guide = conv3(_ATTENTION, width) if config.trunk == "own" else nn.Conv2d(_ATTENTION, width, 1)
        own = config.generator_weights == "own"
        self.coarse: CoarseStages | None = None
        if config.coarse_width:
            self.coarse = CoarseStages(width, config.coarse_width, config.coarse_stages, config.reparam)
        self.stage = ResidualStage(width, config.reparam) if self.repeats else None
        self.later = nn.ModuleList(ResidualStage(width, config.reparam) for _ in range(self.repeats - 1 if own else 0))
        self.fog = nn.Sequential(conv3(width, config.fog_width), nn.LeakyReLU(LEAK), nn.Conv2d(config.fog_width, 6, 1))
        self.tail = conv3(width, 3 * GRID * GRID)
        init_he(self)
        zero_init(self.tail)
        if self.coarse is not None:
            zero_init(self.coarse.up)
        last = self.fog[-1]
        assert isinstance(last, nn.Conv2d)
        zero_init(last)

    def forward(self, rainy: Tensor, attention: Tensor, features: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
        """Gain - 1 and b as (B, 6, H/16, W/16), and the streaks S as (B, 48, H/4, W/4); see :func:`compose`."""
        if self.stem is not None:
            base = self.stem(rainy)
        elif self.join is not None:
            base = self.join(features)
        else:
            base = features
        h0 = base + self.guide(attention)
        h = h0 if self.coarse is None else h0 + self.coarse(h0)
        if self.stage is not None:
            for stage in (self.stage, *(self.later or [self.stage] * (self.repeats - 1))):
                h = stage(h, h0)
        fog = widen(self.fog(F.avg_pool2d(h, _FOG_POOL))) + affine
        log_gain = fog[:, :3].clamp(*GAIN_LOG_RANGE)
        return torch.cat([torch.exp(log_gain) - 1.0, fog[:, 3:]], dim=1), self.tail(h)


def compose(rainy: Tensor, maps: Tensor, streaks: Tensor) -> Tensor:
    """The derained picture, not clamped, from the generator's maps and streaks."""
    maps = F.interpolate(maps, scale_factor=float(FOG_CELL), mode="bilinear", align_corners=False)
    return rainy + (rainy * maps[:, :3] + maps[:, 3:] - widen(F.pixel_shuffle(streaks, GRID)))


class EdgeDerainer(CellDeployable):
    """Extractor and generator together: the deployable of ACGF at edge size (``edge`` and ``nano``)."""

    def __init__(self, config: EdgeConfig, *, system: str = "acgf") -> None:
        super().__init__()
        self.context = FrameContext(config.extractor_width, config.context_width)
        self.extractor = EdgeExtractor(config)
        self.generator = EdgeGenerator(config)
        self.spec = DeployableSpec(
            system=system,
            variant="edge",
            multiple_of=FOG_CELL,
            minimum=FOG_CELL,
            receptive_field=receptive_field(config),
            tiling="needs_context",
            tiling_reason="the fog head and the extractor's tokens look at the whole frame through its context vector",
            attention="learned",
            context_size=self.context.size,
            context_reading=READING,
        )

    def frame_context(self, rainy: Tensor) -> Tensor:
        context: Tensor = self.context(thumbnail(rainy))
        return context

    def pooled_context(self, pooled: Tensor) -> Tensor:
        context: Tensor = self.context(shrink_pooled(pooled))
        return context

    def estimate(self, rainy: Tensor, context: Tensor) -> CellEstimate:
        similarity, affine = self.context.split(context)
        attention, features = self.extractor(rainy, similarity)
        maps, streaks = self.generator(rainy, attention, features, affine)
        return CellEstimate(maps, streaks, attention)

    def picture_readers(self) -> list[nn.Conv2d]:
        stems = [self.extractor.stem, self.generator.stem]
        return [stem for stem in stems if stem is not None]

    def pooled_reader(self) -> nn.Conv2d:
        return self.context.conv1

    def streak_writer(self) -> nn.Conv2d:
        return self.generator.tail

    def raw(self, rainy: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """As ``with_context`` but not clamped: gradients of a training loss must not die at 0 and 1."""
        maps, streaks, attention = self.estimate(rainy, context)
        return compose(rainy, maps, streaks), F.pixel_shuffle(widen(attention), GRID)

    def raw_guided(self, rainy: Tensor, context: Tensor, attention: Tensor) -> Tensor:
        """Derain, not clamped, by a given attention (B, 1, H, W); the generator needs a trunk of its own."""
        _, affine = self.context.split(context)
        cells = F.pixel_unshuffle(attention, GRID)
        # With trunk = "own" the extractor's features do not enter the generator: the picture stands in for them.
        maps, streaks = self.generator(rainy, cells, rainy, affine)
        return compose(rainy, maps, streaks)

    def with_context(self, rainy: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        derained, attention = self.raw(rainy, context)
        return derained.clamp(0.0, 1.0), attention

    def attention_only(self, rainy: Tensor) -> Tensor:
        attention, _ = self.extractor(rainy, self.context.similarity(thumbnail(rainy)))
        return F.pixel_shuffle(widen(attention), GRID)


def receptive_field(config: EdgeConfig) -> int:
    """Side in pixels of the square an output pixel depends on, through the longest path, whole-frame context aside.

    On the 1/4 grid: the stem sees one cell or three, a 3x3 convolution adds 2, the 5x5 local mean 4, the bilinear
    fog head its 3x3 convolution on cells of 4 and the neighbour it blends with.
    """
    stem_cells = 1 if config.stem_kernel == GRID else 3
    per_stage = 4
    extractor = stem_cells + per_stage * config.extractor_stages + 4
    guided = extractor + 2 + (2 if config.trunk == "own" else 0)
    # Each 3x3 convolution on the 1/8 grid adds 4, and a cell's neighbours there lie up to 2 farther on one side.
    coarse = 2 * per_stage * config.coarse_stages + 4 if config.coarse_width else 0
    trunk = guided + coarse + per_stage * config.generator_stages
    fog = trunk + (_FOG_POOL - 1) + 2 * _FOG_POOL + 2 * _FOG_POOL
    return GRID * max(trunk + 2, fog)
