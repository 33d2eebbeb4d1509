"""DCD-GAN: unpaired deraining by dual contrastive learning (Chen et al., CVPR 2022).

A translation branch goes both ways between rainy and clean; a contrastive branch asks that a place of the translated
picture be recognisable as the same place of the original, in the feature spaces of both generators. SYSTEMS.md 3.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from derain.train import losses
from derain.train.deployable import DeployableSpec
from derain.train.losses.contrastive import patch_nce
from derain.train.losses.hinge import hinge, hinge_discriminator
from derain.train.networks.antialias import AntialiasedDiscriminator
from derain.train.networks.blocks import init_he
from derain.train.networks.patch_sample import PatchProjection, draw_places
from derain.train.networks.removal import RemovalDeployable
from derain.train.networks.resnet9 import Resnet9
from derain.train.networks.translator import EdgeTranslator
from derain.train.systems.base import (
    Batch,
    Losses,
    Needs,
    OwnRate,
    StepContext,
    System,
    SystemConfig,
    frozen,
    register_system,
)
from derain.train.systems.variant import VariantConfig

_UNITS = 2.0  # a difference of pictures in [0, 1], in the paper's units, pictures in [-1, 1]
_GRID = 4
_GAIN = 0.02


class DcdGanLosses(SystemConfig):
    """Weights, SYSTEMS.md 3.2. ``mode = "official"`` leaves out the last one, whatever its weight."""

    adversarial: float = Field(default=1.0, ge=0)
    contrastive: float = Field(default=2.0, ge=0, description="PatchNCE, both directions")
    identity: float = Field(default=1.0, ge=0, description="L1, a generator leaves pictures of its target side alone")
    cycle: float = Field(default=10.0, ge=0, description="L1, both directions")


class DcdGanEdge(SystemConfig):
    """Size of the ``edge`` networks. Widths are channels on the 1/4 grid."""

    width: int = Field(default=64, ge=4, le=256)
    stages: int = Field(default=3, ge=1, le=16)
    discriminator_width: int = Field(default=32, ge=4, le=256)


class DcdGanFull(SystemConfig):
    """Size of the ``full`` networks; the defaults are the published ones."""

    width: int = Field(default=64, ge=4, le=256)
    blocks: int = Field(default=9, ge=1, le=32)
    discriminator_width: int = Field(default=64, ge=4, le=256)


class DcdGanConfig(VariantConfig):
    """The ``[config]`` table of a recipe."""

    mode: Literal["paper", "official"] = Field(
        default="paper",
        description="official: what the authors' code trains, which computes the cycle's loss and never adds it; "
        "paper: with it, its weight inferred, and with one learning rate for generators and projections",
    )
    network: DcdGanEdge = DcdGanEdge()
    full: DcdGanFull = DcdGanFull()
    patches: int = Field(default=256, ge=2, le=4096, description="places the contrastive loss compares, per layer")
    projection: int = Field(default=256, ge=4, le=1024, description="length of a projected feature")
    temperature: float = Field(default=0.07, gt=0)
    loss: DcdGanLosses = DcdGanLosses()


def _generator(config: DcdGanConfig) -> Resnet9 | EdgeTranslator:
    if config.variant == "edge":
        return EdgeTranslator(config.network.width, config.network.stages)
    return Resnet9(config.full.width, config.full.blocks)


def _derainer(config: DcdGanConfig) -> RemovalDeployable:
    generator = _generator(config)
    local = isinstance(generator, EdgeTranslator)
    reason = "every pixel depends on a neighbourhood only, and no statistics are taken over the frame"
    if not local:
        reason = "InstanceNorm takes its mean and deviation over the whole frame, so a tile comes out differently"
    spec = DeployableSpec(
        system=DcdGan.name,
        variant=config.variant,
        multiple_of=_GRID,
        minimum=2 * _GRID if local else 4 * _GRID,
        receptive_field=generator.receptive_field if isinstance(generator, EdgeTranslator) else None,
        tiling="sound" if local else "unsound",
        tiling_reason=reason,
        attention="removed_rain",
    )
    return RemovalDeployable(generator, spec)


@register_system
class DcdGan(System):
    """Trains on unpaired pictures; optimises the discriminators first, then the generators, as the authors do."""

    name = "dcd-gan"
    Config = DcdGanConfig
    config: DcdGanConfig
    derainer: RemovalDeployable

    def __init__(self, config: DcdGanConfig) -> None:
        super().__init__(config)
        self.config = config
        self.derainer = _derainer(config)
        self.rainer = _generator(config)
        full = config.variant == "full"
        width = config.full.discriminator_width if full else config.network.discriminator_width
        self.judge_clean = AntialiasedDiscriminator(width, normalise=full)
        self.judge_rain = AntialiasedDiscriminator(width, normalise=full)
        channels = self.rainer.tap_channels
        self.project_clearer = PatchProjection(channels, config.projection)
        self.project_rainer = PatchProjection(channels, config.projection)
        judges = [self.judge_clean, self.judge_rain]
        drawn: list[nn.Module] = [self.project_clearer, self.project_rainer]
        if full:
            drawn += [self.clearer, self.rainer, *judges]
        else:
            # With the published gain a signal fades to nothing on its way through layers without normalisation.
            for judge in judges:
                init_he(judge)
        for network in drawn:
            _init_xavier(network)

    @property
    def clearer(self) -> Resnet9 | EdgeTranslator:
        """The generator that derains."""
        generator = self.derainer.generator
        assert isinstance(generator, Resnet9 | EdgeTranslator)
        return generator

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        generators = [self.clearer, self.rainer, self.project_clearer, self.project_rainer]
        return {
            "generator": [parameter for network in generators for parameter in network.parameters()],
            "discriminator": [*self.judge_clean.parameters(), *self.judge_rain.parameters()],
        }

    def own_rates(self) -> list[OwnRate]:
        """The authors' code leaves the optimizer of F1 and F2 at Adam's defaults: 1e-3, where all else has 1e-4."""
        if self.config.mode == "paper":
            return []
        projections = [*self.project_clearer.parameters(), *self.project_rainer.parameters()]
        return [OwnRate(projections, 10.0, (0.9, 0.999))]

    def needs(self, step: int) -> Needs:
        return Needs(pairs=False, unpaired=True)

    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        rainy, clean = batch.both_sides()
        # One pass of each generator serves translation, identity and, its features detached, the contrastive keys.
        keys_rainy, derained, clean_same = self._translate(self.clearer, rainy, clean)
        keys_clean, made, rainy_same = self._translate(self.rainer, clean, rainy)

        judged = {
            "discriminator_clean": hinge_discriminator(self.judge_clean(clean), self.judge_clean(derained.detach())),
            "discriminator_rain": hinge_discriminator(self.judge_rain(rainy), self.judge_rain(made.detach())),
        }
        context.optimise("discriminator", judged["discriminator_clean"] + judged["discriminator_rain"])

        weights = self.config.loss
        features_derained = self.rainer.encode(derained)
        features_made = self.clearer.encode(made)
        with frozen(self.judge_clean, self.judge_rain):
            adversarial = 0.5 * weights.adversarial
            terms: Losses = {
                "adversarial_clean": adversarial * hinge(self.judge_clean(derained), real=True),
                "adversarial_rain": adversarial * hinge(self.judge_rain(made), real=True),
                "contrastive_clean": 0.5
                * weights.contrastive
                * self._contrast(features_derained, self.project_rainer, keys_rainy, self.project_clearer, context),
                "contrastive_rain": 0.5
                * weights.contrastive
                * self._contrast(features_made, self.project_clearer, keys_clean, self.project_rainer, context),
                "identity_clean": 0.5 * weights.identity * _UNITS * losses.l1(clean_same, clean),
                "identity_rain": 0.5 * weights.identity * _UNITS * losses.l1(rainy_same, rainy),
            }
            if self.config.mode == "paper":
                rainy_again = self.rainer.decode(features_derained, derained)
                clean_again = self.clearer.decode(features_made, made)
                terms["cycle_rain"] = weights.cycle * _UNITS * losses.l1(rainy_again, rainy)
                terms["cycle_clean"] = weights.cycle * _UNITS * losses.l1(clean_again, clean)
            total = torch.stack(list(terms.values())).sum()
            context.optimise("generator", total)
        return {name: value.detach() for name, value in (terms | judged).items()} | {"generator": total.detach()}

    @staticmethod
    def _translate(
        generator: Resnet9 | EdgeTranslator, source: Tensor, target_side: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features of ``source``, detached; ``source`` translated; and what becomes of pictures already there."""
        both = torch.cat([source, target_side])
        features = generator.encode(both)
        made = generator.decode(features, both)
        count = len(source)
        return [feature[:count].detach() for feature in features], made[:count], made[count:]

    def _contrast(
        self,
        features: list[Tensor],
        project: PatchProjection,
        keys: list[Tensor],
        project_keys: PatchProjection,
        context: StepContext,
    ) -> Tensor:
        """PatchNCE averaged over the tapped layers."""
        places = draw_places(keys, self.config.patches, context.generator)
        with torch.no_grad():
            samples_k = project_keys(keys, places)
        samples_q = project(features, places)
        pairs = zip(samples_q, samples_k, strict=True)
        return torch.stack([patch_nce(q, k, self.config.temperature) for q, k in pairs]).mean()


def _init_xavier(network: nn.Module) -> None:
    """The authors' initialisation: Xavier normal with gain 0.02, biases at zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight, gain=_GAIN)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
