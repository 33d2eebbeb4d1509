"""The kinds of rain the trained-on family draws from: one table, one line of reason each."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Regime:
    """A named kind of rain; every pair is a range that is drawn from afresh for each picture.

    Attributes:
        weight: share of the mixture (weights need not sum to one).
        layers: number of streak layers, both ends included.
        coverage: share of the picture covered by all streak layers together.
        length: streak length in pixels of a picture 321 pixels high, drawn log-uniformly for each layer.
        width: standard deviation of the streak profile in pixels.
        brightness: of a typical drop, in units of full white.
        angle_spread: standard deviation between the layers' angles, degrees.
        occlusion: share of a streak that hides the scene instead of adding to it.
        veil: chance of a dense texture of distant streaks.
        near: chance of a few wide, defocused drops close to the camera.
        fog: chance of mist.
        transmission: mean transmission of that mist.
        scene_light: chance that drops are as bright as the scene allows (dim at night) rather than always as given.
    """

    weight: float
    layers: tuple[int, int]
    coverage: Range
    length: Range
    width: Range
    brightness: Range
    angle_spread: Range
    occlusion: Range
    veil: float
    near: float
    fog: float
    transmission: Range
    scene_light: float


REGIMES: dict[str, Regime] = {
    # Rain100L: purely additive grey streaks of one direction, independent of the scene; 20.6 to 35 dB, mean 26.7.
    "rain100l_like": Regime(
        weight=0.26, layers=(1, 3), coverage=(0.05, 0.2), length=(14, 75), width=(0.4, 0.85), brightness=(0.06, 0.32),
        angle_spread=(0.0, 1.0), occlusion=(0.0, 0.0), veil=0.0, near=0.0, fog=0.0, transmission=(1.0, 1.0),
        scene_light=0.0,
    ),
    # Few, small, faint drops: nearly dry pictures that must be left nearly as they are.
    "drizzle": Regime(
        weight=0.08, layers=(1, 2), coverage=(0.005, 0.06), length=(3, 16), width=(0.35, 0.8), brightness=(0.06, 0.3),
        angle_spread=(0.0, 4.0), occlusion=(0.0, 0.6), veil=0.05, near=0.15, fog=0.15, transmission=(0.75, 0.97),
        scene_light=0.6,
    ),
    # What most photographs of rain show.
    "medium": Regime(
        weight=0.16, layers=(2, 3), coverage=(0.05, 0.22), length=(6, 45), width=(0.4, 1.2), brightness=(0.08, 0.38),
        angle_spread=(0.0, 4.0), occlusion=(0.0, 0.8), veil=0.2, near=0.35, fog=0.3, transmission=(0.65, 0.97),
        scene_light=0.6,
    ),
    # Downpour, up to Rain100H: several directions, bright and wide streaks.
    "heavy": Regime(
        weight=0.14, layers=(2, 4), coverage=(0.15, 0.45), length=(8, 60), width=(0.5, 1.5), brightness=(0.12, 0.45),
        angle_spread=(0.0, 12.0), occlusion=(0.0, 0.7), veil=0.4, near=0.4, fog=0.3, transmission=(0.55, 0.95),
        scene_light=0.4,
    ),
    # A fast shutter stops the drops in flight: short, bright specks of many sizes, some far out of focus.
    "specks": Regime(
        weight=0.09, layers=(1, 3), coverage=(0.005, 0.1), length=(2, 10), width=(0.45, 1.8), brightness=(0.1, 0.6),
        angle_spread=(0.0, 8.0), occlusion=(0.0, 0.9), veil=0.1, near=0.4, fog=0.4, transmission=(0.35, 0.95),
        scene_light=0.5,
    ),
    # Curtains of water: a dense texture of far streaks over everything.
    "sheet": Regime(
        weight=0.06, layers=(1, 3), coverage=(0.05, 0.3), length=(8, 40), width=(0.4, 1.0), brightness=(0.12, 0.4),
        angle_spread=(0.0, 3.0), occlusion=(0.0, 0.8), veil=1.0, near=0.2, fog=0.6, transmission=(0.5, 0.95),
        scene_light=0.5,
    ),
    # RainFog and Outdoor-Rain: streaks behind which the scene sinks into grey.
    "rain_fog": Regime(
        weight=0.16, layers=(1, 3), coverage=(0.03, 0.3), length=(6, 60), width=(0.5, 1.4), brightness=(0.12, 0.6),
        angle_spread=(0.0, 5.0), occlusion=(0.0, 0.4), veil=0.4, near=0.2, fog=1.0, transmission=(0.2, 0.75),
        scene_light=0.1,
    ),
    # Mist after or far behind the rain.
    "fog_only": Regime(
        weight=0.05, layers=(0, 0), coverage=(0.0, 0.0), length=(8, 8), width=(0.5, 0.5), brightness=(0.0, 0.0),
        angle_spread=(0.0, 0.0), occlusion=(0.0, 0.0), veil=0.0, near=0.0, fog=1.0, transmission=(0.3, 0.9),
        scene_light=0.0,
    ),
}  # fmt: skip
