"""The asymmetric cycle that ACGF and AUEID train: one extractor (ARFE), one generator (DRFN), one rain maker (RFDR).

Rain to clean: ARFE and DRFN derain a rainy picture, then RFDR puts the extracted rain-fog F back. Clean to rain: RFDR
rains on an unpaired clean picture with the *rainy* picture's F, and DRFN takes it off again. The asymmetry: F comes
from the rainy side only. Structure: ACGF's figure; losses: SYSTEMS.md 1.7. Pairs may anchor the cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from derain.errors import DataError, UsageError
from derain.train import losses
from derain.train.losses.perceptual import PerceptualConfig, PerceptualLoss
from derain.train.networks.blocks import widen
from derain.train.networks.context import thumbnail
from derain.train.networks.discriminators import (
    AuxiliaryDiscriminator,
    DiscriminatorConfig,
    build_discriminator,
    head_weights,
)
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.networks.full import FullConfig, FullDerainer, Removal
from derain.train.networks.rfdr import RainParts, Rfdr, RfdrConfig, reorganise
from derain.train.pool import ImagePool
from derain.train.systems.base import Batch, Crops, Losses, Needs, StepContext, System, SystemConfig, frozen
from derain.train.systems.variant import VariantConfig


class CycleLosses(SystemConfig):
    """Weights. The cycle's are SYSTEMS.md 1.7; the supervised ones act on pictures whose ground truth is known."""

    supervised: float = Field(default=10.0, ge=0, description="Charbonnier on pairs")
    supervised_psnr: float = Field(default=0.0, ge=0, description="minus PSNR on pairs, each picture for itself")
    psnr_ceiling: float = Field(
        default=50.0, ge=10, le=100, description="dB near which a picture is good enough, and its PSNR counts no more"
    )
    supervised_gradient: float = Field(default=5.0, ge=0, description="multi-scale gradient L1 on pairs")
    supervised_ssim: float = Field(default=0.0, ge=0, description="1 - SSIM on pairs")
    supervised_attention: float = Field(default=1.0, ge=0, description="attention against the known rain strength")
    consistency: float = Field(default=10.0, ge=0, description="cycle L1, both directions")
    consistency_ssim: float = Field(default=0.0, ge=0, description="1 - SSIM of the clean cycle (CSUD)")
    adversarial: float = Field(default=1.0, ge=0)
    identity: float = Field(default=5.0, ge=0, description="the generator leaves a clean picture alone")
    physics: float = Field(default=1.0, ge=0, description="the unrefined degradation model explains the rainy picture")
    streak_sparsity: float = Field(default=0.1, ge=0)
    transmission_smoothness: float = Field(default=0.1, ge=0)
    clean_attention: float = Field(default=10.0, ge=0, description="the attention of a clean picture is zero")
    perceptual: float = Field(default=0.0, ge=0, description="features of derained against rainy")
    gradient: float = Field(default=0.1, ge=0, description="gradients of the cycle, in place of a perceptual loss")
    channel_consistency: float = Field(default=0.0, ge=0, description="CSUD's CCLoss")
    parts: float = Field(
        default=1.0, ge=0, description="with the physical prior: T, A, S seen in generated rain are those put in"
    )

    @property
    def uses_pairs(self) -> bool:
        """Whether any supervised weight is above zero; if none is, training is on unpaired pictures alone."""
        pictures = (self.supervised, self.supervised_psnr, self.supervised_gradient, self.supervised_ssim)
        return any((*pictures, self.supervised_attention))


class CycleConfig(VariantConfig):
    """What the ``[config]`` tables of ACGF and AUEID have in common."""

    network: EdgeConfig = EdgeConfig()
    full: FullConfig = FullConfig()
    rfdr: RfdrConfig = RfdrConfig()
    discriminator_clean: DiscriminatorConfig = DiscriminatorConfig()
    discriminator_rain: DiscriminatorConfig = DiscriminatorConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    loss: CycleLosses = CycleLosses()
    crop: int = Field(default=128, ge=32, multiple_of=16, description="side of the pictures in the image pools, pixels")
    pool: int = Field(default=50, ge=0, le=500)
    cycle_from: int = Field(default=0, ge=0, description="step of the first cycle; before it, only pairs are learned")
    cycle_every: int = Field(default=1, ge=1, description="a cycle in one of this many steps")
    detach_rainy: bool = Field(
        default=True, description="no gradient from the second deraining into RFDR: against hidden signals (CSUD)"
    )
    adversarial_noise: float = Field(
        default=1.5, ge=0, le=16, description="noise on generated rain before it is derained, levels of 255"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.loss.uses_pairs and (self.cycle_from or self.cycle_every > 1):
            raise ValueError("without a supervised loss every step needs the cycle: cycle_from 0 and cycle_every 1")
        if self.full.generator.prior == "physics" and self.variant == "full" and self.rfdr.model != "heavy":
            raise ValueError("full.generator.prior 'physics' inverts the model 'heavy': rfdr.model must be that")
        return self


class RainCycle(System):
    """What ACGF and AUEID share; a subclass says which derainer, and which F guides the second deraining.

    Attributes:
        same_guide: the second deraining is guided by the rainy picture's F instead of extracting its own.
        diverse: RFDR gets noise, so that one clean picture and one F make many rains.
    """

    config: CycleConfig
    derainer: EdgeDerainer | FullDerainer
    same_guide: bool
    diverse: bool

    def __init__(self, config: CycleConfig) -> None:
        super().__init__(config)
        self.config = config
        self.derainer = (
            FullDerainer(config.full, system=self.name)
            if config.variant == "full"
            else EdgeDerainer(config.network, system=self.name)
        )
        self.rfdr = Rfdr(config.rfdr)
        self.judge_clean = build_discriminator(config.discriminator_clean)
        self.judge_rain = build_discriminator(config.discriminator_rain)
        shape = (3, config.crop, config.crop)
        self.pool_clean = ImagePool(config.pool, shape)
        self.pool_rain = ImagePool(config.pool, shape)
        self.perceptual = PerceptualLoss(config.perceptual)
        self._clean_heads = head_weights(self.judge_clean)
        self._rain_heads = head_weights(self.judge_rain)
        self._classifies = isinstance(self.judge_rain, AuxiliaryDiscriminator)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "generator": [*self.derainer.parameters(), *self.rfdr.parameters()],
            "discriminator": [*self.judge_clean.parameters(), *self.judge_rain.parameters()],
        }

    def needs(self, step: int) -> Needs:
        after = step - self.config.cycle_from
        unpaired = after >= 0 and after % self.config.cycle_every == 0
        return Needs(pairs=self.config.loss.uses_pairs or self._classifies, unpaired=unpaired)

    def notes(self) -> list[str]:
        return [str(self.perceptual)] if self.config.loss.perceptual else []

    @torch.no_grad()
    def rain(self, clean: Tensor, rainy: Tensor, generator: torch.Generator) -> Tensor:
        """The rain-fog F of ``rainy`` on ``clean``; where RFDR takes noise, each draw makes another rain of one F."""
        noise = Rfdr.noise(clean, generator) if self.diverse else None
        made: RainParts = self.rfdr(clean, self.derainer.attention_only(rainy), noise)
        return made.rainy.clamp(0, 1)

    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        terms = self._supervised(batch) if self.config.loss.uses_pairs else {}
        if batch.rainy is None or batch.clean is None:
            if not terms:
                raise DataError(
                    "There is nothing to train on: no supervised loss, and no unpaired pictures",
                    fix="Give both --rainy and --clean folders, or a recipe with a supervised loss",
                )
            total = torch.stack(list(terms.values())).sum()
            context.optimise("generator", total)
            return {name: value.detach() for name, value in terms.items()} | {"generator": total.detach()}

        if batch.rainy.picture.shape[-1] != self.config.crop:
            raise UsageError(
                f"The recipe's [data] crop is {batch.rainy.picture.shape[-1]}, its [config] crop {self.config.crop}",
                fix="Give both the same value: the image pools keep crops",
            )
        with frozen(self.judge_clean, self.judge_rain):
            derained, made = self._cycle(batch.rainy, batch.clean, context, terms)
            total = torch.stack(list(terms.values())).sum()
            context.optimise("generator", total)
        judged = self._discriminate(batch, derained.detach(), made.rainy.detach(), context)
        return {name: value.detach() for name, value in (terms | judged).items()} | {"generator": total.detach()}

    def remove(self, crops: Crops, guide: Tensor | None = None) -> Removal:
        """Derain, guided by the given F, or by the crops' own."""
        if isinstance(self.derainer, FullDerainer):
            return self.derainer.remove(crops.picture, guide)
        context = self.derainer.context(crops.thumb)
        if guide is None:
            return Removal(*self.derainer.raw(crops.picture, context))
        return Removal(self.derainer.raw_guided(crops.picture, context, guide), guide)

    def _supervised(self, batch: Batch) -> Losses:
        weights = self.config.loss
        assert batch.paired is not None
        assert batch.truth is not None
        truth = batch.truth
        derained, attention, _ = self.remove(batch.paired)
        target = losses.rain_strength(batch.paired.picture, truth)
        terms = {"supervised_attention": weights.supervised_attention * losses.l1(attention, target)}
        pictures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "supervised": losses.charbonnier,
            "supervised_psnr": partial(losses.log_mse, floor=10 ** (-weights.psnr_ceiling / 10)),
            "supervised_gradient": losses.gradient_l1,
            "supervised_ssim": losses.one_minus_ssim,
        }
        for name, loss in pictures.items():
            if weight := getattr(weights, name):
                terms[name] = weight * loss(derained, truth)
        return terms

    def _cycle(self, rainy: Crops, clean: Crops, context: StepContext, terms: Losses) -> tuple[Tensor, RainParts]:
        """Both directions; adds their losses to ``terms``; returns the derained real rain and the generated rain."""
        removed = self.remove(rainy)
        attention = removed.attention
        rained_back = self.rfdr(removed.derained, attention)
        noise = Rfdr.noise(clean.picture, context.generator) if self.diverse else None
        made: RainParts = self.rfdr(clean.picture, attention, noise)
        second = self._second_input(made.rainy, context)
        restored = self.remove(second, attention if self.same_guide else None)

        self._rain_to_clean(rainy.picture, removed, rained_back, terms)
        self._clean_to_rain(clean.picture, made, restored, terms)
        self._clean_stays(clean, attention, terms)
        return removed.derained, made

    def _second_input(self, made: Tensor, context: StepContext) -> Crops:
        """Generated rain as the second deraining sees it."""
        second = made.detach() if self.config.detach_rainy else made
        if self.config.adversarial_noise:
            noise = context.randn(*second.shape).to(second.device)
            second = second + noise * (self.config.adversarial_noise / 255)
        return Crops(second, thumbnail(second.clamp(0, 1)))

    def _rain_to_clean(self, rainy: Tensor, removed: Removal, rained_back: RainParts, terms: Losses) -> None:
        weights = self.config.loss
        terms["cycle_rain"] = weights.consistency * losses.l1(rained_back.rainy, rainy)
        judged = self.judge_clean(removed.derained)
        terms["adversarial_clean"] = weights.adversarial * losses.lsgan(judged, 1.0, self._clean_heads)
        if weights.perceptual:
            terms["perceptual"] = weights.perceptual * self.perceptual(removed.derained, rainy)
        terms["physics"] = weights.physics * losses.l1(rained_back.unrefined, rainy)
        if removed.parts is not None:
            explained = reorganise(removed.derained, *removed.parts, "heavy")
            terms["physics_removal"] = weights.physics * losses.l1(explained, rainy)

    def _clean_to_rain(self, clean: Tensor, made: RainParts, restored: Removal, terms: Losses) -> None:
        weights = self.config.loss
        terms["cycle_clean"] = weights.consistency * losses.l1(restored.derained, clean)
        if weights.consistency_ssim:
            terms["cycle_ssim"] = weights.consistency_ssim * losses.one_minus_ssim(restored.derained, clean)
        judged = self.judge_rain(made.rainy)
        terms["adversarial_rain"] = weights.adversarial * losses.lsgan(judged, 1.0, self._rain_heads)
        terms["regular"] = weights.streak_sparsity * made.streaks.abs().mean()
        terms["regular"] = terms["regular"] + weights.transmission_smoothness * losses.total_variation(
            made.transmission
        )
        terms["gradient"] = weights.gradient * losses.gradient_l1(restored.derained, clean)
        if restored.parts is not None:
            put_in = (made.streaks, made.transmission, made.airlight)
            differences = [losses.l1(seen, true.detach()) for seen, true in zip(restored.parts, put_in, strict=True)]
            terms["parts"] = weights.parts * torch.stack(differences).sum()
        if weights.channel_consistency:
            terms["channels"] = weights.channel_consistency * losses.channel_consistency(made.rainy - clean)

    def _clean_stays(self, clean: Crops, attention: Tensor, terms: Losses) -> None:
        """The generator leaves a clean picture alone; its own F, where it is needed, is zero."""
        weights = self.config.loss
        guided = not isinstance(self.derainer, FullDerainer) or self.derainer.generator.guided
        extracts = guided or weights.clean_attention > 0
        untouched = self.remove(clean, None if extracts else attention)
        terms["identity"] = weights.identity * losses.l1(untouched.derained, clean.picture)
        if weights.clean_attention:
            terms["clean_attention"] = weights.clean_attention * untouched.attention.abs().mean()

    def _discriminate(self, batch: Batch, derained: Tensor, made: Tensor, context: StepContext) -> Losses:
        assert batch.rainy is not None
        assert batch.clean is not None
        old_clean = self.pool_clean.exchange(widen(derained), context.generator)
        old_rain = self.pool_rain.exchange(widen(made), context.generator)
        clean_side = losses.lsgan_discriminator(
            self.judge_clean(batch.clean.picture), self.judge_clean(old_clean), self._clean_heads
        )
        rain_side = self._judge_rain(batch, batch.clean.picture, batch.rainy.picture, old_rain)
        context.optimise("discriminator", clean_side + rain_side)
        return {"discriminator_clean": clean_side, "discriminator_rain": rain_side}

    def _judge_rain(self, batch: Batch, clean: Tensor, rainy: Tensor, made: Tensor) -> Tensor:
        real, fake = self.judge_rain(rainy), self.judge_rain(made)
        if not self._classifies:
            return losses.lsgan_discriminator(real, fake, self._rain_heads)
        # What real rain holds is not known: the auxiliary heads learn from synthetic rain and from clean pictures.
        assert batch.paired is not None
        assert batch.labels is not None
        labelled = self.judge_rain(torch.cat([batch.paired.picture, clean]))[1:]
        labels = torch.cat([batch.labels, batch.labels.new_zeros(len(clean), len(labelled))])
        classes = losses.lsgan_labels(labelled, labels, self._rain_heads[1:])
        return losses.lsgan_discriminator(real[:1], fake[:1], self._rain_heads[:1]) + classes
