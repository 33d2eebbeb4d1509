"""DerainCycleGAN: a cycle GAN guided by an unsupervised attentive rain streak extractor (Wei et al., TIP 2021).

The extractor (U-ARSE) looks at both domains, its masks guide both generators, and the cycle runs both ways; networks
and losses: SYSTEMS.md 2. Losses are in the paper's units, pictures in [-1, 1]; networks take and give [0, 1].
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from derain.train import losses
from derain.train.deployable import Deployable, DeployableSpec
from derain.train.losses.gmm import RainMixture
from derain.train.losses.perceptual import PerceptualConfig, PerceptualLoss
from derain.train.networks import drfn
from derain.train.networks.discriminators import DiscriminatorConfig, build_discriminator, head_weights
from derain.train.networks.drfn import Drfn, DrfnConfig
from derain.train.networks.multiscale import MultiScaleDiscriminator
from derain.train.networks.translator import EdgeTranslator
from derain.train.networks.uarse import GRID, EdgeUarse, Uarse
from derain.train.pool import ImagePool
from derain.train.systems.base import (
    Batch,
    Losses,
    Needs,
    StepContext,
    System,
    SystemConfig,
    frozen,
    register_system,
)
from derain.train.systems.variant import VariantConfig

_UNITS = 2.0  # a difference of pictures in [0, 1], in the paper's units
_RAIN_NOISE = 0.01


class DerainCycleGanLosses(SystemConfig):
    """Weights, SYSTEMS.md 2.3. ``mode = "official"`` leaves out the last three, whatever their weight."""

    adversarial: float = Field(default=1.0, ge=0)
    cycle: float = Field(default=10.0, ge=0, description="L1, both directions")
    clean_attention: float = Field(default=10.0, ge=0, description="att_n: the mask of a clean picture is zero")
    reconstruction: float = Field(default=10.0, ge=0, description="L_r: mask + derained = rainy")
    rain_attention: float = Field(default=10.0, ge=0, description="att_r: the mask of a rainy picture against noise")
    mixture: float = Field(default=10.0, ge=0, description="GMM likelihood of what was taken off")
    perceptual: float = Field(default=0.01, ge=0, description="features of derained against rainy")


class DerainCycleGanEdge(SystemConfig):
    """Size of the ``edge`` networks. Widths are channels on the 1/4 grid."""

    extractor_width: int = Field(default=32, ge=4, le=256)
    extractor_stages: int = Field(default=4, ge=1, le=16)
    generator_width: int = Field(default=64, ge=4, le=256)
    generator_stages: int = Field(default=2, ge=1, le=16)


class DerainCycleGanFull(SystemConfig):
    """Size of the ``full`` networks; the defaults are the published ones."""

    extractor_width: int = Field(default=32, ge=4, le=256)
    extractor_iterations: int = Field(default=6, ge=1, le=16)
    extractor_blocks: int = Field(default=5, ge=1, le=16)
    generator_width: int = Field(default=64, ge=4, le=256, multiple_of=2)


class DerainCycleGanConfig(VariantConfig):
    """The ``[config]`` table of a recipe."""

    mode: Literal["paper", "official"] = Field(
        default="paper",
        description="official: what the authors' code trains: no att_r, no GMM, no gradient from the perceptual loss, "
        "and generators judged at the finest scale only",
    )
    network: DerainCycleGanEdge = DerainCycleGanEdge()
    full: DerainCycleGanFull = DerainCycleGanFull()
    discriminator: DiscriminatorConfig = DiscriminatorConfig(kind="multiscale", widths=[64, 128, 256, 512])
    perceptual: PerceptualConfig = PerceptualConfig()
    loss: DerainCycleGanLosses = DerainCycleGanLosses()
    crop: int = Field(default=128, ge=32, multiple_of=16, description="side of the pictures in the image pools, pixels")
    pool: int = Field(default=50, ge=0, le=500)


def _extractor(config: DerainCycleGanConfig) -> Uarse | EdgeUarse:
    if config.variant == "edge":
        return EdgeUarse(config.network.extractor_width, config.network.extractor_stages)
    full = config.full
    return Uarse(full.extractor_width, full.extractor_iterations, full.extractor_blocks)


class GuidedGenerator(nn.Module):
    """Picture and mask to a picture, all (B, ., H, W), not clamped: either generator of the cycle, at either size.

    The published one has two more output heads, 10,374 parameters, that nothing reads; they are left out.
    """

    def __init__(self, config: DerainCycleGanConfig) -> None:
        super().__init__()
        self.network: EdgeTranslator | Drfn
        if config.variant == "edge":
            network = config.network
            self.network = EdgeTranslator(network.generator_width, network.generator_stages, guided=True)
            self.receptive_field = self.network.receptive_field
        else:
            drfn_config = DrfnConfig(width=config.full.generator_width, attention="guide", residual="none")
            self.network = Drfn(drfn_config)
            field = drfn.receptive_field(drfn_config)
            assert field is not None
            self.receptive_field = field

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        out = self.network(picture, mask)
        made: Tensor = out[0] if isinstance(out, tuple) else out
        return made


class GuidedDerainer(Deployable):
    """U-ARSE and the generator that derains.

    The attention given out is the mask cut to [0, 1]: rain of half the picture's range and more counts as full.
    """

    def __init__(self, config: DerainCycleGanConfig) -> None:
        super().__init__()
        self.extractor = _extractor(config)
        self.generator = GuidedGenerator(config)
        self.spec = DeployableSpec(
            system=DerainCycleGan.name,
            variant=config.variant,
            multiple_of=GRID,
            minimum=2 * GRID,
            receptive_field=self.extractor.receptive_field + self.generator.receptive_field - 1,
            tiling="sound",
            tiling_reason="every pixel depends on a neighbourhood only, and no statistics are taken over the frame",
            attention="learned",
        )

    def remove(self, rainy: Tensor, mask: Tensor) -> Tensor:
        """Derained, not clamped: gradients of a training loss must not die at 0 and 1."""
        derained: Tensor = self.generator(rainy, mask)
        return derained

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.extractor(rainy)
        return self.remove(rainy, mask).clamp(0.0, 1.0), mask.clamp(0.0, 1.0)

    def attention_only(self, rainy: Tensor) -> Tensor:
        mask: Tensor = self.extractor(rainy)
        return mask.clamp(0.0, 1.0)


@register_system
class DerainCycleGan(System):
    """Trains on unpaired pictures; optimises the generators first, then the discriminators, as the authors do."""

    name = "derain-cyclegan"
    Config = DerainCycleGanConfig
    config: DerainCycleGanConfig
    derainer: GuidedDerainer

    def __init__(self, config: DerainCycleGanConfig) -> None:
        super().__init__(config)
        self.config = config
        self.derainer = GuidedDerainer(config)
        self.rainer = GuidedGenerator(config)
        self.judge_clean = build_discriminator(config.discriminator)
        self.judge_rain = build_discriminator(config.discriminator)
        shape = (3, config.crop, config.crop)
        self.pool_clean = ImagePool(config.pool, shape)
        self.pool_rain = ImagePool(config.pool, shape)
        self.mixture = RainMixture()
        self.perceptual = PerceptualLoss(config.perceptual)
        self._heads = head_weights(self.judge_clean)
        drawn = [self.judge_clean, self.judge_rain]
        if config.variant == "full":
            drawn += [self.derainer, self.rainer]
        for network in drawn:
            init_normal(network)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "generator": [*self.derainer.parameters(), *self.rainer.parameters()],
            "discriminator": [*self.judge_clean.parameters(), *self.judge_rain.parameters()],
        }

    def needs(self, step: int) -> Needs:
        return Needs(pairs=False, unpaired=True)

    def notes(self) -> list[str]:
        return [str(self.perceptual)] if self.config.mode == "paper" else []

    @torch.no_grad()
    def rain(self, clean: Tensor, rainy: Tensor, generator: torch.Generator) -> Tensor:
        """As Rain200A was made: guided by the rainy picture's mask and a little noise."""
        mask = self.derainer.extractor(rainy)
        noise = torch.rand(mask.shape, generator=generator).to(mask.device) * _RAIN_NOISE
        made: Tensor = self.rainer(clean, mask + noise)
        return made.clamp(0.0, 1.0)

    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        rainy, clean = batch.both_sides()
        with frozen(self.judge_clean, self.judge_rain):
            terms, derained, made = self._cycle(rainy, clean, context)
            total = torch.stack(list(terms.values())).sum()
            context.optimise("generator", total)
        judged = self._discriminate(rainy, clean, derained.detach(), made.detach(), context)
        return {name: value.detach() for name, value in (terms | judged).items()} | {"generator": total.detach()}

    def _cycle(self, rainy: Tensor, clean: Tensor, context: StepContext) -> tuple[Losses, Tensor, Tensor]:
        """Eq. 4 and 5; the losses of both directions, the derained and the rained-on pictures."""
        derain, extract = self.derainer.remove, self.derainer.extractor
        sizes = [len(rainy), len(clean)]
        mask, clean_mask = extract(torch.cat([rainy, clean])).split(sizes)
        derained = derain(rainy, mask)
        made = self.rainer(clean, clean_mask)
        derained_mask, made_mask = extract(torch.cat([derained, made])).split(sizes)
        rainy_again = self.rainer(derained, derained_mask)
        clean_again = derain(made, made_mask)

        weights = self.config.loss
        taken = _UNITS * (rainy - derained)
        terms: Losses = {
            "adversarial_clean": weights.adversarial * self._fool(self.judge_clean, derained),
            "adversarial_rain": weights.adversarial * self._fool(self.judge_rain, made),
            "cycle_rain": weights.cycle * _UNITS * losses.l1(rainy_again, rainy),
            "cycle_clean": weights.cycle * _UNITS * losses.l1(clean_again, clean),
            "clean_attention": weights.clean_attention * (clean_mask**2).mean(),
            "reconstruction": weights.reconstruction * ((mask - taken) ** 2).mean(),
        }
        if self.config.mode == "paper":
            terms["rain_attention"] = weights.rain_attention * ((mask - self._noise(mask, context)) ** 2).mean()
            self.mixture.expectation_maximisation(taken)
            terms["mixture"] = weights.mixture * self.mixture.negative_log_likelihood(taken)
            terms["perceptual"] = weights.perceptual * self.perceptual(derained, rainy)
        return terms, derained, made

    def _fool(self, judge: nn.Module, picture: Tensor) -> Tensor:
        """The authors' code looks at the finest scale only; the paper names no such exception."""
        if self.config.mode == "official":
            multiscale = isinstance(judge, MultiScaleDiscriminator)
            return losses.lsgan(judge(picture, scales=1) if multiscale else judge(picture)[:1], 1.0)
        return losses.lsgan(judge(picture), 1.0, self._heads)

    @staticmethod
    def _noise(mask: Tensor, context: StepContext) -> Tensor:
        """The target of att_r.

        The paper calls it Gaussian on (0, 1); the line commented out of the code draws it uniformly from there, and
        the authors say that the comment is the mistake (their issue 15), so this is what runs. Fresh noise has no
        other effect on the gradient's mean than its mean, 0.5: it keeps the mask of rainy pictures awake while att_n
        silences that of clean ones. One draw serves the whole batch, so that processes sharing a batch agree.
        """
        return torch.rand(1, 1, *mask.shape[2:], generator=context.generator).to(mask.device)

    def _discriminate(
        self, rainy: Tensor, clean: Tensor, derained: Tensor, made: Tensor, context: StepContext
    ) -> Losses:
        old_clean = self.pool_clean.exchange(derained, context.generator)
        old_rain = self.pool_rain.exchange(made, context.generator)
        clean_side = self._judged(self.judge_clean, clean, old_clean)
        rain_side = self._judged(self.judge_rain, rainy, old_rain)
        context.optimise("discriminator", clean_side + rain_side)
        return {"discriminator_clean": clean_side, "discriminator_rain": rain_side}

    def _judged(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Both in one pass: at the coarse scales a discriminator's time is that of reading its 8 million weights."""
        sides = [scores.split([len(real), len(fake)]) for scores in judge(torch.cat([real, fake]))]
        return losses.lsgan_discriminator([side[0] for side in sides], [side[1] for side in sides], self._heads)


def init_normal(network: nn.Module, deviation: float = 0.02) -> None:
    """CycleGAN's initialisation: the weights of convolutions are drawn from N(0, 0.02), biases stay as they are."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=deviation)
