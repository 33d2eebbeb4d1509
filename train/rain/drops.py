"""Physics of falling drops: how many, how large, how fast, how they light up and how much they hide.

Diameters are in millimetres and rain rates in millimetres an hour, as in the sources; all else is in SI units.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MARSHALL_PALMER_N0 = 8000.0
"""Drops per cubic metre of air and millimetre of diameter at diameter zero (Marshall & Palmer 1948, eq. 3)."""

LARGEST_DIAMETER = 6.0
"""Larger drops break up as they fall, millimetres."""


def marshall_palmer_slope(rain_rate: float) -> float:
    """Slope ``4.1 R^-0.21`` per millimetre of ``N(D) = N0 exp(-slope D)`` (Marshall & Palmer 1948, eq. 4); R > 0."""
    return float(4.1 * rain_rate**-0.21)


def terminal_velocity(diameter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fall speed in still air at sea level, m/s: ``9.65 - 10.3 exp(-0.6 D)``.

    Atlas, Srivastava & Sekhon 1973, eq. 7, a fit to Gunn & Kinzer 1949 within 2 % from 0.6 to 5.8 mm; 0 where the fit
    turns negative, below 0.11 mm.
    """
    speed: NDArray[np.float64] = np.maximum(9.65 - 10.3 * np.exp(-0.6 * diameter), 0.0)
    return speed


def oscillation_frequency(diameter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequency in Hz of a drop's fundamental shape oscillation (Rayleigh 1879; n = 2, water in air at 20 °C)."""
    surface_tension, density = 0.0728, 998.0
    frequency: NDArray[np.float64] = np.sqrt(16.0 * surface_tension / (math.pi**2 * density * (diameter * 1e-3) ** 3))
    return frequency


def rain_extinction(rain_rate: float) -> float:
    """Extinction of light by the drops themselves, per metre.

    The integral of twice the drops' cross-section over Marshall and Palmer's distribution, ``pi N0 / slope^3``; twice,
    because a drop much larger than the wavelength also diffracts as much light as it blocks.
    """
    return 0.0 if rain_rate == 0 else math.pi * MARSHALL_PALMER_N0 / marshall_palmer_slope(rain_rate) ** 3 * 1e-6
