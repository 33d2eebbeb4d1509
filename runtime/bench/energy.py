"""Energy of a stretch of work, from whatever meter the machine has: RAPL, a Jetson's tegrastats, nvidia-smi.

RAPL: Linux' powercap interface (Documentation/power/powercap). The counters of CPU packages are read before and after;
each begins again at 0 beyond its range. The other two are programs that print power several times a second.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from derain.runtime.doctor_system import System

_INTERVAL_MS = 100
_PACKAGES = "/sys/class/powercap/intel-rapl:*"


class Meter(Protocol):
    """Measures one stretch at a time. ``gpu_only``: it says nothing about work on the CPU."""

    source: str
    gpu_only: bool

    def start(self) -> None:
        """The stretch begins."""

    def stop(self) -> float | None:
        """The stretch ends: joules, None when nothing could be read."""


class RaplMeter:
    """Energy of all CPU packages, the whole machine's work included.

    Args:
        folders: of the packages' domains; readable.
    """

    source = "RAPL, CPU packages"
    gpu_only = False

    def __init__(self, system: System, folders: Sequence[str]) -> None:
        self._system = system
        self._folders = folders
        self._before: list[int] = []

    def start(self) -> None:
        self._before = self._read("energy_uj")

    def stop(self) -> float | None:
        after, ranges = self._read("energy_uj"), self._read("max_energy_range_uj")
        if not len(self._before) == len(after) == len(ranges) == len(self._folders):
            return None
        used = (
            end - begin if end >= begin else end - begin + span
            for begin, end, span in zip(self._before, after, ranges, strict=True)
        )
        return sum(used) / 1e6

    def _read(self, name: str) -> list[int]:
        texts = [self._system.read(f"{folder}/{name}") for folder in self._folders]
        return [int(text) for text in texts if text is not None and text.isdigit()]


class PowerMeter:
    """Mean of the power that a program prints, times the length of the stretch.

    Args:
        command: prints a line for each reading until it is ended.
        watts: power in a line; None where it tells none.

    ``readings`` are the watts, and ``seconds`` the length, of the last stretch.
    """

    def __init__(
        self, source: str, command: Sequence[str], watts: Callable[[str], float | None], gpu_only: bool = False
    ) -> None:
        self.source = source
        self.gpu_only = gpu_only
        self._command = list(command)
        self._watts = watts
        self.readings: list[float] = []
        self.seconds = 0.0

    def start(self) -> None:
        self.readings = []
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()
        self._begin = time.monotonic()

    def stop(self) -> float | None:
        self.seconds = time.monotonic() - self._begin
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        return self.seconds * sum(self.readings) / len(self.readings) if self.readings else None

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                watts = self._watts(line)
                if watts is not None:
                    self.readings.append(watts)


def find_meters(system: System) -> tuple[list[Meter], str]:
    """The meters of this machine, and what is missing where there is none."""
    meters: list[Meter] = []
    packages = [
        folder for folder in system.matches(_PACKAGES) if (system.read(f"{folder}/name") or "").startswith("package")
    ]
    readable = [folder for folder in packages if system.read(f"{folder}/energy_uj") is not None]
    if packages and len(readable) == len(packages):
        meters.append(RaplMeter(system, packages))
    if system.which("tegrastats") is not None:
        command = ("tegrastats", "--interval", str(_INTERVAL_MS))
        meters.append(PowerMeter("tegrastats, whole module", command, tegrastats_watts))
    elif system.which("nvidia-smi") is not None:
        query = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", "0")
        meters.append(PowerMeter("nvidia-smi, GPU board", (*query, "-lms", str(_INTERVAL_MS)), nvidia_smi_watts, True))
    if packages and not readable:
        return meters, f"{packages[0]}/energy_uj can be read by root only"
    return meters, "no RAPL in /sys/class/powercap and no tegrastats; nvidia-smi would tell of a GPU alone"


def tegrastats_watts(line: str) -> float | None:
    """Power of the module in a line of tegrastats: ``VDD_IN 4988mW/4988mW`` (now/mean), else the sum of all rails."""
    rails = {name: int(now) for name, now in re.findall(r"\b([A-Z][A-Z0-9_]*) (\d+)mW/\d+mW", line)}
    if not rails:
        return None
    return rails.get("VDD_IN", sum(rails.values())) / 1000


def nvidia_smi_watts(line: str) -> float | None:
    """Power in a line of ``nvidia-smi --query-gpu=power.draw``; ``[N/A]`` is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", line)
    return float(match[1]) if match else None
