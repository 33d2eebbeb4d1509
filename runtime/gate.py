"""The rain gate: frames of dry weather pass untouched, and only a look now and then tells whether it rains.

Rain is rare, and deraining a dry frame costs time and can only change it. The attention extractor alone, a part
of the deraining network, is run at a low rate; its map becomes one number between 0 and 1, the rain intensity, which is
useful by itself: for wipers, alarms, or the trust in what a detector saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from derain.errors import UsageError
from derain.rain_intensity import USUAL_HALF, intensity
from derain.runtime.media.items import Frame
from derain.runtime.pipeline import Derained
from derain.runtime.ports import Picture, RainMap

GateMode: TypeAlias = Literal["auto", "off", "always"]
MODES: tuple[GateMode, ...] = ("auto", "off", "always")


@dataclass(frozen=True)
class GateSettings:
    """When the gate opens and closes.

    Attributes:
        wet: intensity from which on it rains; the scale of a model's intensities is on its card.
        dry: intensity below which it may be over; the gap keeps the picture from flickering between the two.
        period: seconds between two looks.
        hold: seconds that every look must have been dry before the gate closes.
        memory: seconds over which intensities are averaged.
    """

    wet: float = 0.33
    dry: float = 0.25
    period: float = 0.5
    hold: float = 5.0
    memory: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.dry <= self.wet < 1:
            raise UsageError(f"The gate closes below {self.dry} and opens at {self.wet}", expected="0 < dry <= wet < 1")
        if self.period < 0 or self.hold < 0 or self.memory < 0:
            raise UsageError("A time of the gate is negative", expected="seconds, 0 or more")


class RainGate:
    """Derains a stream's frames, or lets them pass. One stream, one gate; one thread at a time.

    Time is the frames' own where they have one (files), else that of ``now``.

    Args:
        derain: frame to result and rain map; None instead of a map means that nobody needs it.
        look: frame to rain map, by the attention-only graph; ``derain``'s map where it is None.
        mode: ``auto``; ``always``: derain every frame; ``off``: as ``always``, and never measure.
        settings: thresholds and times.
        keep_map: give the rain map with every result that has one.
        half: the scale of the model's intensities, ``rain_half`` of its card.
    """

    def __init__(
        self,
        derain: Callable[[Picture, bool], tuple[Picture, RainMap | None]],
        look: Callable[[Picture], RainMap] | None = None,
        mode: GateMode = "auto",
        settings: GateSettings | None = None,
        *,
        keep_map: bool = False,
        half: float = USUAL_HALF,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if mode not in MODES:
            raise UsageError(f"The gate's mode is '{mode}'", expected=f"one of: {', '.join(MODES)}")
        self.settings = settings or GateSettings()
        self.mode = mode
        self.looks = 0
        self.passed = 0
        self.derained = 0
        self._derain, self._look, self._keep_map, self._half, self._now = derain, look, keep_map, half, now
        self._open = True  # until the first look, it may rain
        self._level: float | None = None
        self._last_look: float | None = None
        self._last_wet = 0.0

    @property
    def raining(self) -> bool:
        """Whether frames are derained at the moment."""
        return self.mode != "auto" or self._open

    def __call__(self, frame: Frame) -> Derained:
        """Derain the frame, or give it back as it is: the very same pixels."""
        if self.mode == "off":
            clean, rain = self._derain(frame.pixels, self._keep_map)
            self.derained += 1
            return Derained(frame, clean, rain)
        seconds = self._now() if frame.seconds is None else frame.seconds
        due = self._last_look is None or not 0 <= seconds - self._last_look < self.settings.period
        if due and not (self._level is not None and self.raining):
            # While it is dry, or not known yet, only the extractor is run.
            found = self._look(frame.pixels) if self._look else self._map(frame.pixels)
            self._note(intensity(found, self._half), seconds)
            due = False
        if not self.raining:
            self.passed += 1
            return Derained(frame, frame.pixels, intensity=self._level, gated=True)
        clean, rain = self._derain(frame.pixels, self._keep_map or due)
        self.derained += 1
        if due and rain is not None:
            self._note(intensity(rain, self._half), seconds)  # the whole graph gives the same map for nothing
        return Derained(frame, clean, rain if self._keep_map else None, self._level)

    def _map(self, pixels: Picture) -> RainMap:
        rain = self._derain(pixels, True)[1]
        assert rain is not None
        return rain

    def _note(self, found: float, seconds: float) -> None:
        settings = self.settings
        self.looks += 1
        if self._level is None or self._last_look is None:
            self._level = found
            self._open = found >= settings.dry
            self._last_wet = seconds
        else:
            passed = max(seconds - self._last_look, 0.0)
            keep = float(np.exp(-passed / settings.memory)) if settings.memory > 0 else 0.0
            self._level = keep * self._level + (1 - keep) * found
        if self._level >= settings.wet:
            self._open = True
        if self._level >= settings.dry:
            self._last_wet = seconds
        elif seconds - self._last_wet >= settings.hold or seconds < self._last_wet:
            self._open = False
        self._last_look = seconds
