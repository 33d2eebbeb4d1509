"""Family A, the rain that networks are trained on: motion-blurred noise, mist and a camera, drawn from a mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.errors import UsageError
from derain.train.rain import camera
from derain.train.rain.degradation import RainSample, Synthesiser, check_clean, degrade
from derain.train.rain.draws import log_uniform
from derain.train.rain.fog import draw_airlight, draw_transmission
from derain.train.rain.regimes import REGIMES, Regime
from derain.train.rain.streaks import StreakLayer, VeilLayer, draw_streaks, draw_veil

__all__ = ["NoiseRain", "NoiseRainConfig", "RainSample", "Synthesiser", "degrade"]

REFERENCE_HEIGHT = 321
"""Height in pixels of the pictures (BSD) whose streak lengths the table of regimes gives."""

_DEEPEST = 0.6  # largest standard deviation of the logarithm of the layers' nearness: near drops are long and wide


@dataclass(frozen=True)
class NoiseRainConfig:
    """What the mixture is made of.

    Attributes:
        weights: share of each regime, by the names of :data:`derain.train.rain.regimes.REGIMES`; those left out get
            none. Empty takes the table's own weights.
        max_angle: fall directions reach this many degrees either side of vertical.
        night: chance that both pictures are darkened to dusk or night.
        soften: chance that both pictures lose some resolution, as after a resize.
        noise: chance of sensor noise on the rainy picture, of up to ``noise_sigma`` in units of white.
        noise_sigma: the strongest noise.
        jpeg: chance that the rainy picture goes through JPEG of a quality in ``jpeg_quality``.
        jpeg_quality: lowest and highest quality.
        keep_mist: mean transmissions (thick, thin): mist thinner than the second stays in the target picture, mist
            thicker than the first is taken off, and in between in part. None takes all of it off. A network that must
            take off even light mist, which cannot be told from the air of a clear scene, learns to change clear scenes.
        scale: lengths and widths are multiplied by this. None scales them with the picture's height, except that
            pictures less than 240 pixels high are taken for crops of a BSD-sized picture.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    max_angle: float = 40.0
    night: float = 0.08
    soften: float = 0.08
    noise: float = 0.25
    noise_sigma: float = 0.012
    jpeg: float = 0.12
    jpeg_quality: tuple[int, int] = (70, 98)
    keep_mist: tuple[float, float] | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        """Refuse names that are no regime, weights that cannot be chances, and limits that are no transmissions."""
        if self.keep_mist is not None and not 0 < self.keep_mist[0] < self.keep_mist[1] <= 1:
            raise UsageError(
                f"keep_mist is {self.keep_mist}", expected="two transmissions above 0 and up to 1, thick mist first"
            )
        unknown = sorted(set(self.weights) - set(REGIMES))
        if unknown:
            raise UsageError(f"unknown kind of rain: {', '.join(unknown)}", expected=f"some of {', '.join(REGIMES)}")
        if self.weights and (min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0):
            raise UsageError(f"the weights of rain are {dict(self.weights)}", expected="none negative and one above 0")


class NoiseRain:
    """Rains on clean pictures; the same generator state gives the same rain."""

    def __init__(self, config: NoiseRainConfig | None = None) -> None:
        self.config = config or NoiseRainConfig()
        weights = self.config.weights or {name: regime.weight for name, regime in REGIMES.items()}
        self._names = list(weights)
        self._chances = np.array(list(weights.values())) / sum(weights.values())

    def __call__(self, clean: NDArray[np.float32], rng: np.random.Generator) -> RainSample:
        """Draw a regime and rain on ``clean`` (float32 (H, W, 3) RGB in [0, 1], left as it was).

        Raises:
            DataError: ``clean`` is of another shape or dtype.
        """
        check_clean(clean)
        config = self.config
        name = self._names[int(rng.choice(len(self._names), p=self._chances))]
        regime = REGIMES[name]
        if rng.random() < config.night:
            clean = camera.darken(clean, rng)

        adding, hiding = self._draw_rain(clean.shape[:2], regime, rng)
        if rng.random() < regime.scene_light:
            light = _ambient_light(clean)
            adding *= light
        if regime.fog > rng.random():
            low, high = regime.transmission
            transmission = draw_transmission(clean, rng.uniform(low, high), rng, unevenness=rng.uniform(0.3, 1.0))
            airlight = draw_airlight(rng) * np.float32(min(1.0, 0.4 + 1.5 * float(clean[::8, ::8].mean())))
        else:
            transmission = np.ones(clean.shape[:2], dtype=np.float32)
            airlight = draw_airlight(rng)

        streaks = adding
        if hiding is None:
            rainy = degrade(clean, streaks, transmission, airlight)
        else:
            coloured = _hide_scene(clean, adding, hiding)
            rainy = degrade(clean, coloured, transmission, airlight)
            streaks = np.maximum(cv2.transform(coloured, np.full((1, 3), 1 / 3, dtype=np.float32)), 0.0)
        kept = self._mist_kept(float(transmission.mean()))
        if kept > 0:
            clean = degrade(clean, np.zeros_like(streaks), transmission**kept, airlight)
        return self._photograph(RainSample(rainy, clean, streaks, transmission, airlight, name), rng)

    def _draw_rain(
        self, shape: tuple[int, int], regime: Regime, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Streak brightness, and the opacity of the streaks where the regime lets them hide the scene."""
        streaks = np.zeros(shape, dtype=np.float32)
        count = int(rng.integers(regime.layers[0], regime.layers[1] + 1))
        if count == 0:
            return streaks, None
        scale = self._scale(shape[0]) * math.exp(rng.uniform(-0.25, 0.25))
        fall = rng.triangular(-1.0, 0.0, 1.0) if rng.random() < 0.5 else rng.uniform(-1.0, 1.0)
        angle = self.config.max_angle * fall
        spread = rng.uniform(*regime.angle_spread)
        brightness = rng.uniform(*regime.brightness)
        coverage = rng.uniform(*regime.coverage)
        shares = rng.dirichlet(np.full(count, 2.0))
        deep = rng.uniform(0.0, _DEEPEST) if rng.random() < 0.5 else 0.0
        for share in shares:
            nearness = math.exp(rng.normal(0.0, deep))
            length = nearness * scale * log_uniform(regime.length, rng)
            streaks += draw_streaks(
                shape,
                StreakLayer(
                    coverage=coverage * float(share),
                    length=length,
                    length_spread=rng.uniform(0.1, 0.7),
                    width=rng.uniform(*regime.width) * max(1.0, nearness * scale) ** 0.7,
                    angle=angle + rng.normal(0.0, spread),
                    brightness=brightness * rng.uniform(0.5, 1.3) / max(1.0, nearness) ** 0.5,
                    brightness_spread=rng.uniform(0.3, 1.0),
                    convergence=rng.uniform(-0.12, 0.12) if rng.random() < 0.25 else 0.0,
                    beads=rng.uniform(0.2, 1.0) if rng.random() < 0.3 else 0.0,
                ),
                rng,
            )
        if rng.random() < regime.veil:
            threshold = rng.uniform(-0.5, 1.8)
            veil = VeilLayer(
                length=scale * rng.uniform(8.0, 50.0),
                angle=angle + rng.normal(0.0, spread),
                threshold=threshold,
                brightness=brightness * rng.uniform(0.15, 0.4) * (1.0 + 0.4 * max(threshold, 0.0)),
            )
            streaks += draw_veil(shape, veil, rng)
        if rng.random() < regime.near:
            streaks += _near_drops(shape, angle, brightness, scale, rng)
        share_hidden = rng.uniform(*regime.occlusion)
        if share_hidden < 0.05 or rng.random() < 0.4:
            return streaks, None
        return streaks * np.float32(1.0 - share_hidden), streaks * np.float32(share_hidden)

    def _mist_kept(self, transmission: float) -> float:
        """The power of the transmission that stays in the target: 1 all of the mist, 0 none."""
        if self.config.keep_mist is None or transmission >= 1.0:
            return 0.0
        thick, thin = self.config.keep_mist
        return min(1.0, max(0.0, (transmission - thick) / (thin - thick)))

    def _scale(self, height: int) -> float:
        if self.config.scale is not None:
            return self.config.scale
        return 1.0 if height < 240 else min(4.0, height / REFERENCE_HEIGHT)

    def _photograph(self, sample: RainSample, rng: np.random.Generator) -> RainSample:
        """Resolution of both pictures, then noise and JPEG of the rainy one."""
        config = self.config
        rainy, clean = sample.rainy, sample.clean
        if rng.random() < config.soften:
            scale = rng.uniform(0.5, 0.95)
            rainy, clean = camera.soften(rainy, scale), camera.soften(clean, scale)
        if rng.random() < config.noise:
            camera.add_noise(rainy, config.noise_sigma * rng.random(), rng)
        if rng.random() < config.jpeg:
            low, high = config.jpeg_quality
            rainy = camera.jpeg(rainy, int(rng.integers(low, high + 1)))
        return RainSample(rainy, clean, sample.streaks, sample.transmission, sample.airlight, sample.regime)


def _near_drops(
    shape: tuple[int, int], angle: float, brightness: float, scale: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A few drops close to the camera: wide, faint, out of focus; so smooth that a quarter of the size will do."""
    quarter = (max(4, shape[0] // 4), max(4, shape[1] // 4))
    width = scale * rng.uniform(0.5, 2.0)
    layer = StreakLayer(
        coverage=rng.uniform(0.005, 0.12),
        length=scale * log_uniform((2.0, 50.0), rng),
        length_spread=0.3,
        width=width,
        angle=angle + rng.normal(0.0, 3.0),
        brightness=brightness * rng.uniform(0.2, 0.9),
        brightness_spread=rng.uniform(0.3, 0.8),
        convergence=0.0,
    )
    drops = draw_streaks(quarter, layer, rng)
    return np.asarray(cv2.resize(drops, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _ambient_light(clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """How brightly a drop shines in each place, 0 to about 1.4: a drop gathers light from a wide field of view."""
    height, width = clean.shape[:2]
    small = cv2.resize(clean, (6, 4), interpolation=cv2.INTER_AREA).mean(axis=2)
    light = 0.15 + 1.2 * (0.6 * small.mean() + 0.4 * small)
    return np.asarray(cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def _hide_scene(
    clean: NDArray[np.float32], adding: NDArray[np.float32], hiding: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Rise (H, W, 3) of each channel when streaks both add light and cover the scene with a pale grey.

    The grey is as bright as the brighter parts of the scene, so streaks fade before a bright sky, as real ones do.
    """
    bright = float(np.quantile(clean[::8, ::8], 0.9))
    grey = np.float32(min(1.0, 0.15 + 0.9 * bright))
    opacity = np.minimum(hiding / max(float(grey), 0.05), 0.9)
    rise: NDArray[np.float32] = np.subtract(grey, clean)
    cv2.multiply(rise, cv2.merge((opacity, opacity, opacity)), dst=rise)
    rise += cv2.merge((adding, adding, adding))
    return rise
