"""Family B, rain that no network is trained on: drops falling through a camera's view, for stills and video.

It shares nothing with the motion-blurred noise of family A but the degradation model. Drop sizes follow the rain rate,
fall speeds the drop sizes, streaks the exposure time, and their brightness Garg & Nayar ("Vision and Rain", IJCV 2007):
a drop is a transparent lens that shows most of the sky and the scene around it, so a pixel it crosses for a share
``alpha`` of the exposure turns from ``B`` into ``(1 - alpha) B + alpha E`` with ``E`` the light of those surroundings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.errors import UsageError
from derain.train.rain.degradation import RainSample, check_clean
from derain.train.rain.draws import log_uniform
from derain.train.rain.drops import (
    LARGEST_DIAMETER,
    MARSHALL_PALMER_N0,
    marshall_palmer_slope,
    oscillation_frequency,
    rain_extinction,
    terminal_velocity,
)
from derain.train.rain.splat import Paths, draw_opacity

_SMALLEST_WIDTH = 0.15
"""Drops less wide than this, in pixels, are not drawn one by one: together they are the mist."""

_BAND = 64
"""Rows put together at once, so that what lies between stays in the cache."""

_NEAREST = 0.2
"""No drop is drawn closer to the lens than this, metres."""


@dataclass(frozen=True)
class StormConfig:
    """One storm before one camera.

    Attributes:
        rain_rate: mm/h; 0 is dry, 2 light, 10 moderate, 50 a downpour, 200 a cloudburst or a film set.
        wind: sideways speed of the air, m/s; positive blows to the right.
        gustiness: standard deviation of the drops' own sideways speed, m/s.
        field_of_view: horizontal, degrees.
        exposure: seconds.
        aperture: diameter of the lens opening, metres; 0 keeps everything sharp.
        focus: distance in focus, metres.
        backlight: luminance of what shines through the drops, in units of the picture's mean brightness: far above 1
            under a sky that the camera overexposes or does not show, which is when rain is seen at all.
        mist: extinction of mist beside that of the drops, per metre.
        horizon: height of the horizon, from 0 at the top of the picture to 1 at its bottom.
        scene_distance: distance of what stands above the horizon, metres.
        drops: at most about this many are drawn, the largest in view.
    """

    rain_rate: float = 80.0
    wind: float = 1.0
    gustiness: float = 0.25
    field_of_view: float = 35.0
    exposure: float = 1 / 200
    aperture: float = 0.003
    focus: float = 8.0
    backlight: float = 8.0
    mist: float = 0.001
    horizon: float = 0.35
    scene_distance: float = 60.0
    drops: int = 4000

    def __post_init__(self) -> None:
        """Refuse what no camera or sky has."""
        if not (self.rain_rate >= 0 and self.exposure > 0 and 5 <= self.field_of_view <= 150 and self.drops >= 0):
            raise UsageError(
                f"a storm of {self.rain_rate} mm/h, {self.exposure} s exposure, {self.field_of_view} degrees field of "
                f"view and {self.drops} drops",
                expected="rain rate and drops of 0 or more, exposure above 0, field of view from 5 to 150 degrees",
            )


class ParticleStorm:
    """Rain that falls on through time: any moment can be asked for, in any order."""

    def __init__(self, shape: tuple[int, int], config: StormConfig, rng: np.random.Generator) -> None:
        """Fill the view of a (H, W) picture with drops, all randomness drawn here and now."""
        self.shape = shape
        self.config = config
        height, width = shape
        self.focal = 0.5 * width / math.tan(math.radians(config.field_of_view) / 2)
        """Focal length in pixels."""
        diameter, depth = self._draw_drops(rng)

        scale = self.focal / depth  # pixels per metre at the drop
        fall = terminal_velocity(diameter)
        drift = config.wind + rng.normal(0.0, config.gustiness, diameter.size)
        sharp = diameter * 1e-3 * scale
        blur = config.aperture * self.focal * np.abs(1.0 / depth - 1.0 / config.focus)
        shown = np.hypot(sharp, blur)
        margin = np.stack((np.abs(drift), fall)) * scale * config.exposure + 0.5 * shown + 1.0
        span = np.array([[width], [height]]) + 2.0 * margin

        # A drop falls round and round through a field a little larger than the picture, so more of them are needed.
        copies = np.floor(span[0] * span[1] / (width * height) + rng.random(diameter.size)).astype(np.int64)
        index = np.repeat(np.arange(diameter.size), copies)
        self.diameter = diameter[index]
        """Of each drop, mm."""
        self.depth = depth[index]
        """Distance of each drop from the camera, metres."""
        self.velocity = np.stack((drift, fall))[:, index]
        """Sideways and downward speed of each drop, (2, N) m/s."""
        self._scale, self._sharp, self._shown = scale[index], sharp[index], shown[index]
        self._margin, self._span = margin[:, index], span[:, index]
        self._start = rng.random(index.size) * self._span[1]
        self._name = rng.integers(0, 2**32, index.size, dtype=np.uint32)
        self._phase = rng.uniform(0.0, 2.0 * math.pi, index.size)
        self._frequency = oscillation_frequency(self.diameter)
        self.transmission = self._mist()
        """Of the mist, (H, W) float32 in (0, 1]."""

    def _draw_drops(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diameters (mm) and depths (m) of the drops in view that are wide enough to see.

        A drop of diameter D is at least w pixels wide up to the distance ``z(D) = f D / w``; the volume of the view up
        to there grows with ``z^3``. So drops that show have diameters distributed as ``D^3 exp(-slope D)``, a gamma
        distribution, and depths as ``z(D) u^(1/3)`` with u uniform; and their number is
        ``(H W f / 3 w^3) * 6 N0 / slope^4 * 1e-9``.
        """
        config = self.config
        if config.rain_rate == 0 or config.drops == 0:
            return np.empty(0), np.empty(0)
        slope = marshall_palmer_slope(config.rain_rate)
        wide_as_a_pixel = self.shape[0] * self.shape[1] * self.focal * 2e-9 * MARSHALL_PALMER_N0 / slope**4
        width = max(_SMALLEST_WIDTH, (wide_as_a_pixel / config.drops) ** (1 / 3))
        count = int(rng.poisson(wide_as_a_pixel / width**3))
        diameter = rng.gamma(4.0, 1.0 / slope, count)
        depth = self.focal * diameter * 1e-3 / width * rng.random(count) ** (1 / 3)
        real = (diameter <= LARGEST_DIAMETER) & (diameter >= 0.3) & (depth >= _NEAREST)
        return diameter[real], depth[real]

    def positions(self, time: float) -> NDArray[np.float64]:
        """Where each drop is at ``time`` (seconds), (2, N): x and y in pixels, partly outside the picture.

        Between two passes through the field a drop moves by its velocity; with each pass it comes down elsewhere.
        """
        way = self._start + self.velocity[1] * self._scale * time
        passes = np.floor(way / self._span[1])
        y = way - passes * self._span[1]
        x = _scatter(self._name, passes) * self._span[0] + self.velocity[0] * self._scale * time
        return np.stack((x - np.floor(x / self._span[0]) * self._span[0], y)) - self._margin

    def opacity(self, time: float) -> NDArray[np.float32]:
        """Share of an exposure starting at ``time`` during which drops cover each pixel, (H, W) float32 in [0, 1]."""
        exposure = self.config.exposure
        x, y = self.positions(time)
        paths = Paths(
            x=x,
            y=y,
            dx=self.velocity[0] * self._scale * exposure,
            dy=self.velocity[1] * self._scale * exposure,
            area=math.pi / 4 * self._sharp**2,
            diameter=self._shown,
            beads=self._frequency * exposure,
            phase=self._phase + 2.0 * math.pi * self._frequency * time,
        )
        return draw_opacity(self.shape, paths)

    def frame(self, clean: NDArray[np.float32], time: float) -> NDArray[np.float32]:
        """Rain on ``clean`` at ``time``: ``(1 - alpha) (T B + (1 - T) A) + alpha E``, in [0, 1].

        The drops one can tell apart fall in front of the mist, not behind it.

        Args:
            clean: float32 (H, W, 3) RGB in [0, 1], of the storm's own size; left as it was.
            time: when the shutter opens, seconds.

        Raises:
            DataError: ``clean`` is no such array.
            UsageError: ``clean`` has another size than the storm.
        """
        return self._photograph(clean, self.opacity(time))

    def sample(self, clean: NDArray[np.float32], time: float) -> RainSample:
        """The rainy picture of :meth:`frame` with what it is made of."""
        opacity = self.opacity(time)
        rainy = self._photograph(clean, opacity)
        light, airlight = self._light(clean)
        grey = cv2.transform(clean, np.full((1, 3), 1 / 3, dtype=np.float32))
        behind = self.transmission * grey + (1.0 - self.transmission) * airlight.mean()
        streaks = np.maximum(opacity * (light.mean() - behind) / self.transmission, 0.0)
        return RainSample(rainy, clean, streaks, self.transmission, airlight, "particles")

    def _photograph(self, clean: NDArray[np.float32], opacity: NDArray[np.float32]) -> NDArray[np.float32]:
        check_clean(clean)
        if clean.shape[:2] != self.shape:
            raise UsageError(f"a picture of {clean.shape[:2]} in a storm made for {self.shape}", expected="equal sizes")
        light, airlight = self._light(clean)
        rainy = np.empty_like(clean)
        for top in range(0, self.shape[0], _BAND):
            band = slice(top, top + _BAND)
            clear = 1.0 - opacity[band]
            kept = clear * self.transmission[band]
            clear -= kept
            part = cv2.multiply(cv2.merge((kept, kept, kept)), clean[band])
            part += cv2.merge([clear * veil + opacity[band] * glow for veil, glow in zip(airlight, light, strict=True)])
            np.clip(part, 0.0, 1.0, out=rainy[band])
        return rainy

    def _light(self, clean: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Light through the drops and of the mist, (3,) each, from what the picture shows of its surroundings."""
        few = np.ascontiguousarray(clean[::8, ::8])
        colour = few.mean(axis=(0, 1))
        sky = max(float(np.quantile(few.mean(axis=2), 0.85)), 0.02)
        pale = 0.75 * float(colour.mean()) + 0.25 * colour
        return (self.config.backlight * pale).astype(np.float32), np.full(3, min(0.95 * sky, 0.9), dtype=np.float32)

    def _mist(self) -> NDArray[np.float32]:
        """``exp(-extinction * distance)`` over a plain up to a horizon, with what stands above it at one distance."""
        height, width = self.shape
        row = np.arange(height, dtype=np.float64) + 0.5
        below = np.maximum(row - self.config.horizon * height, 0.0)
        camera_height = 1.6
        distance = 1.0 / (1.0 / self.config.scene_distance + below / (camera_height * self.focal))
        transmission = np.exp(-(rain_extinction(self.config.rain_rate) + self.config.mist) * distance)
        column = transmission.astype(np.float32)[:, None]
        column = cv2.GaussianBlur(column, (1, 0), 1.0, sigmaY=0.08 * height, borderType=cv2.BORDER_REPLICATE)  # relief
        return np.repeat(column.reshape(-1, 1), width, axis=1)


def _scatter(name: NDArray[np.uint32], passes: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each drop and pass: the same when asked again, unrelated to that of the next pass."""
    mixed = name ^ (passes.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # Wellons' low-bias 32-bit hash
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    share: NDArray[np.float64] = (mixed ^ (mixed >> np.uint32(16))) / 2.0**32
    return share


@dataclass(frozen=True)
class ParticleRainConfig:
    """Ranges from which each still picture draws a storm; what is not named keeps the value in ``storm``.

    Attributes:
        storm: the rest of the configuration.
        rain_rate: mm/h, drawn log-uniformly.
        exposure: seconds, drawn log-uniformly.
        wind: m/s, strongest, to either side.
        aperture: metres.
        focus: metres, drawn log-uniformly.
        field_of_view: degrees.
        backlight: as in :class:`StormConfig`, drawn log-uniformly.
        mist: per metre; half of the pictures have none.
        horizon: as in :class:`StormConfig`.
        scene_distance: metres, drawn log-uniformly.
    """

    storm: StormConfig = StormConfig()
    rain_rate: tuple[float, float] = (15.0, 250.0)
    exposure: tuple[float, float] = (1 / 800, 1 / 60)
    wind: float = 4.0
    aperture: tuple[float, float] = (0.0005, 0.008)
    focus: tuple[float, float] = (2.0, 20.0)
    field_of_view: tuple[float, float] = (15.0, 65.0)
    backlight: tuple[float, float] = (4.0, 20.0)
    mist: tuple[float, float] = (0.0, 0.015)
    horizon: tuple[float, float] = (0.0, 0.6)
    scene_distance: tuple[float, float] = (10.0, 150.0)


class ParticleRain:
    """Rains on single pictures, each in a storm and before a camera of its own."""

    def __init__(self, config: ParticleRainConfig | None = None) -> None:
        self.config = config or ParticleRainConfig()

    def __call__(self, clean: NDArray[np.float32], rng: np.random.Generator) -> RainSample:
        """Draw a storm and rain on ``clean`` (float32 (H, W, 3) RGB in [0, 1], left as it was).

        Raises:
            DataError: ``clean`` is of another shape or dtype.
        """
        check_clean(clean)
        config = self.config
        storm = replace(
            config.storm,
            rain_rate=log_uniform(config.rain_rate, rng),
            exposure=log_uniform(config.exposure, rng),
            wind=config.wind * rng.triangular(-1.0, 0.0, 1.0),
            aperture=rng.uniform(*config.aperture),
            focus=log_uniform(config.focus, rng),
            field_of_view=rng.uniform(*config.field_of_view),
            backlight=log_uniform(config.backlight, rng),
            mist=rng.uniform(*config.mist) if rng.random() < 0.5 else 0.0,
            horizon=rng.uniform(*config.horizon),
            scene_distance=log_uniform(config.scene_distance, rng),
        )
        return ParticleStorm((clean.shape[0], clean.shape[1]), storm, rng).sample(clean, 0.0)
