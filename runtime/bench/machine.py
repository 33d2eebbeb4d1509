"""The machine beside a measurement: what it is, and in which state it was. What cannot be read has a reason instead.

Sources: /proc and /sys of Linux (Documentation/filesystems/proc, ABI/testing/sysfs-devices-system-cpu), ``nvidia-smi
--query-gpu``, ``nvpmodel -q``. Nothing is changed, and nothing needs root; files that only root reads are told as such.
"""

from __future__ import annotations

import os
import platform
import re
from typing import Any

from derain import __version__
from derain.runtime.backends.threads import default_threads
from derain.runtime.bench.schema import Conditions, Machine, Reading, known
from derain.runtime.doctor_gpu import probe_jetson
from derain.runtime.doctor_system import System

# Distributions that bring the engines; which of two is installed decides the name.
_ENGINES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
}
_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
_GPU_FIELDS = ("name", "driver_version", "clocks.sm", "clocks_throttle_reasons.active")
# Bits of nvmlClocksEventReasons (nvml.h); 1 is idle and 2 a limit the user asked for, neither slows a busy GPU down.
_GPU_REASONS = {
    0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost", 0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown", 0x80: "hardware power brake", 0x100: "display clocks",
}  # fmt: skip


def describe_machine(system: System) -> Machine:
    """What does not change during a run."""
    jetson = _jetson(system)
    gpu, driver, _, _ = _nvidia_smi(system)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", system.read("/proc/meminfo") or "", re.M)
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Machine(
        cpu=known(_cpu_model(system), "/proc/cpuinfo names no model"),
        architecture=platform.machine(),
        cores=known(default_threads(), ""),
        cpus=len(affinity),
        memory_bytes=known(int(memory[1]) * 1024 if memory else None, "/proc/meminfo has no MemTotal"),
        system=f"{platform.system()} {platform.release()}",
        board=known(jetson.get("board"), "this is no Jetson"),
        jetpack=known(jetson.get("jetpack"), "nvidia-jetpack is not installed"),
        gpu=gpu,
        gpu_driver=driver,
        versions={
            "derain": Reading(value=__version__),
            "python": Reading(value=platform.python_version()),
            **{name: _version(names) for name, names in _ENGINES.items()},
        },
    )


def look(system: System, busy_others: Reading) -> Conditions:
    """The state at this moment.

    Args:
        busy_others: what :class:`CpuUse` measured.
    """
    load = (system.read("/proc/loadavg") or "").split()
    jetson = _jetson(system)
    clock = jetson.get("gpu_clock_hz")
    _, _, gpu_clock, gpu_reasons = _nvidia_smi(system)
    if isinstance(clock, dict):
        gpu_clock = Reading(value=clock["now"] / 1e6)
    fixed = clock["min"] >= clock["max"] if isinstance(clock, dict) else None
    return Conditions(
        load_average=known(float(load[0]) if load else None, "/proc/loadavg cannot be read"),
        busy_others=busy_others,
        cpu_clock_mhz=_cpu_clock(system),
        cpu_clock_max_mhz=_of_cpus(system, "cpufreq/cpuinfo_max_freq", 1e-3),
        governor=_governor(system),
        gpu_clock_mhz=gpu_clock,
        power_mode=known(jetson.get("power_mode"), "nvpmodel does not answer: this is no Jetson"),
        jetson_clocks=known(fixed, "there is no GPU clock of a Jetson in /sys/class/devfreq"),
        temperatures=_temperatures(system),
        cpu_throttled=_throttled(system),
        gpu_throttled=gpu_reasons,
    )


class CpuUse:
    """Share of all CPUs that other processes used, from /proc/stat and this run's own CPU time.

    Args:
        ticks: of /proc/stat in one second.
    """

    def __init__(self, system: System, ticks: int | None = None) -> None:
        self._system = system
        self._ticks = ticks or os.sysconf("SC_CLK_TCK")
        self._before = self._read()

    def others(self, own_seconds: float) -> Reading:
        """Since the object was made.

        Args:
            own_seconds: CPU time that this run used meanwhile, all of its processes and threads.
        """
        after = self._read()
        if self._before is None or after is None or after[1] <= self._before[1]:
            return Reading(missing="/proc/stat cannot be read")
        busy = after[0] - self._before[0] - own_seconds * self._ticks
        return Reading(value=round(min(max(busy / (after[1] - self._before[1]), 0.0), 1.0), 3))

    def _read(self) -> tuple[int, int] | None:
        """(busy, all) ticks. The first line: cpu user nice system idle iowait irq softirq steal guest guest_nice."""
        match = re.match(r"cpu ((?: *\d+){4,})", self._system.read("/proc/stat") or "")
        if match is None:
            return None
        ticks = [int(number) for number in match[1].split()][:8]  # guests are contained in user and nice
        return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def _jetson(system: System) -> dict[str, Any]:
    return probe_jetson(system).facts


def _cpu_model(system: System) -> str | None:
    """x86 has "model name"; ARM names implementer and part only, and the device tree the board's chip."""
    match = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", system.read("/proc/cpuinfo") or "", re.M)
    if match:
        return match[1].strip()
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)", system.read("/proc/cpuinfo") or "", re.M)
    return f"ARM part {', '.join(sorted(set(parts)))}" if parts else None


def _cpu_clock(system: System) -> Reading:
    """The kernel's own figure, else what /proc/cpuinfo says; on a virtual machine that is the nominal clock."""
    current = _of_cpus(system, "cpufreq/scaling_cur_freq", 1e-3)
    if current.value is not None:
        return current
    clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", system.read("/proc/cpuinfo") or "", re.M)]
    return known(round(sum(clocks) / len(clocks), 1) if clocks else None, str(current.missing))


def _of_cpus(system: System, name: str, scale: float) -> Reading:
    """Mean over the CPUs of a number in a file of each."""
    values = [float(text) for text in _texts(system, f"{_CPU}/{name}") if text.isdigit()]
    return known(round(scale * sum(values) / len(values), 1) if values else None, f"no {_CPU}/{name}")


def _governor(system: System) -> Reading:
    found = sorted(set(_texts(system, f"{_CPU}/cpufreq/scaling_governor")))
    return known(", ".join(found) or None, f"no {_CPU}/cpufreq: the machine does not let its clock be seen")


def _temperatures(system: System) -> dict[str, Reading]:
    zones: dict[str, Reading] = {}
    for folder in system.matches("/sys/class/thermal/thermal_zone*"):
        kind, text = system.read(f"{folder}/type"), system.read(f"{folder}/temp")
        name = kind or folder.rsplit("/", 1)[-1]
        name = name if name not in zones else f"{name} {folder.rsplit('thermal_zone', 1)[-1]}"
        number = re.fullmatch(r"-?\d+", text or "")
        zones[name] = known(int(number[0]) / 1000 if number else None, f"{folder}/temp cannot be read")
    return zones or {"all": Reading(missing="no /sys/class/thermal/thermal_zone*")}


def _throttled(system: System) -> Reading:
    counts = [int(text) for text in _texts(system, f"{_CPU}/thermal_throttle/core_throttle_count") if text.isdigit()]
    return known(sum(counts) if counts else None, f"no {_CPU}/thermal_throttle")


def _texts(system: System, pattern: str) -> list[str]:
    return [text for path in system.matches(pattern) if (text := system.read(path)) is not None]


def _nvidia_smi(system: System) -> tuple[Reading, Reading, Reading, Reading]:
    """(name, driver, clock in MHz, reasons for slowing down) of the first GPU."""
    if system.which("nvidia-smi") is None:
        return (Reading(missing="nvidia-smi is not here"),) * 4
    answer = system.run("nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits") or ""
    cells = [cell.strip() for cell in answer.partition("\n")[0].split(",")]
    if len(cells) != len(_GPU_FIELDS):
        return (Reading(missing=f"nvidia-smi says: {answer.strip()[:200] or 'nothing'}"),) * 4
    name, driver, clock, reasons = cells
    mhz = float(clock) if clock.isdigit() else None
    return (
        Reading(value=name),
        Reading(value=driver),
        known(mhz, f"nvidia-smi gives the clock as {clock}"),
        known(_reasons(reasons), f"nvidia-smi gives the reasons as {reasons}"),
    )


def _reasons(text: str) -> str | None:
    if not re.fullmatch(r"0x[0-9a-fA-F]+", text):
        return None
    bits = int(text, 16)
    return ", ".join(name for bit, name in _GPU_REASONS.items() if bits & bit) or "none"


def _version(distributions: tuple[str, ...]) -> Reading:
    from importlib.metadata import PackageNotFoundError, version

    for name in distributions:
        try:
            return Reading(value=version(name))
        except PackageNotFoundError:
            continue
    return Reading(missing="not installed")
