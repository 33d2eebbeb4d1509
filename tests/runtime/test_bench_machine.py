"""The machine beside a measurement. The texts are made from each source's documented format, not recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_doctor import Machine

from derain.runtime.bench.energy import PowerMeter, RaplMeter, find_meters, nvidia_smi_watts, tegrastats_watts
from derain.runtime.bench.machine import CpuUse, describe_machine, look
from derain.runtime.bench.schema import Reading
from derain.runtime.doctor_system import System

CPU = "/sys/devices/system/cpu"
RAPL = "/sys/class/powercap/intel-rapl"
XEON = """processor\t: 0
model name\t: Example CPU @ 2.00GHz
cpu MHz\t\t: 2000.000

processor\t: 1
model name\t: Example CPU @ 2.00GHz
cpu MHz\t\t: 3000.000
"""
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\nprocessor\t: 1\nCPU part\t: 0xd42\n"
LAPTOP = {
    "/proc/cpuinfo": XEON,
    "/proc/meminfo": "MemTotal:       16384 kB\nMemFree:  1 kB",
    "/proc/loadavg": "1.50 0.80 0.40 2/345 6789",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1200000",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "1800000",
    f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "4000000",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "3",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "4",
    "/sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "/sys/class/thermal/thermal_zone0/temp": "61500",
    "/sys/class/thermal/thermal_zone1/type": "acpitz",
    "/sys/class/thermal/thermal_zone1/temp": "unreadable",
}
DEVFREQ = "/sys/class/devfreq/17000000.gpu"
JETSON = {
    "/proc/cpuinfo": ARM,
    "/proc/loadavg": "0.10 0.20 0.30 1/100 200",
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3",
    f"{DEVFREQ}/cur_freq": "1020000000",
    f"{DEVFREQ}/min_freq": "1020000000",
    f"{DEVFREQ}/max_freq": "1020000000",
}
TEGRASTATS = (
    "11-22-2026 10:00:00 RAM 2448/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,0%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] cpu@43.5C soc2@42.1C VDD_IN 4988mW/4900mW VDD_CPU_GPU_CV 645mW/640mW "
    "VDD_SOC 1450mW/1449mW"
)
UNKNOWN = Reading(missing="not asked")


def test_a_laptop() -> None:
    machine = describe_machine(Machine(files=LAPTOP))
    assert machine.cpu.value == "Example CPU @ 2.00GHz"
    assert machine.memory_bytes.value == 16384 * 1024
    assert machine.board.missing == "this is no Jetson"
    assert machine.versions["derain"].value
    state = look(Machine(files=LAPTOP), UNKNOWN)
    assert state.load_average.value == 1.5
    assert state.cpu_clock_mhz.value == 1500
    assert state.cpu_clock_max_mhz.value == 4000
    assert state.governor.value == "powersave"
    assert state.cpu_throttled.value == 7
    assert state.temperatures["x86_pkg_temp"].value == 61.5
    assert "cannot be read" in (state.temperatures["acpitz"].missing or "")


def test_a_jetson() -> None:
    system = Machine(files=JETSON, commands={"nvpmodel": "NV Power Mode: 25W\n1\n", "dpkg-query": "Version: 6.2+b77\n"})
    machine = describe_machine(system)
    assert machine.cpu.value == "ARM part 0xd42"
    assert machine.board.value == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.jetpack.value == "6.2+b77"
    state = look(system, UNKNOWN)
    assert (state.power_mode.value, state.gpu_clock_mhz.value, state.jetson_clocks.value) == ("25W", 1020, True)
    free = look(Machine(files={**JETSON, f"{DEVFREQ}/min_freq": "306000000"}), UNKNOWN)
    assert free.jetson_clocks.value is False


def test_a_desktop_gpu() -> None:
    line = "NVIDIA GeForce RTX 3060, 560.35.03, 1777, 0x0000000000000024\n"
    system = Machine(files=LAPTOP, commands={"nvidia-smi": line})
    machine, state = describe_machine(system), look(system, UNKNOWN)
    assert (machine.gpu.value, machine.gpu_driver.value) == ("NVIDIA GeForce RTX 3060", "560.35.03")
    assert state.gpu_clock_mhz.value == 1777
    assert state.gpu_throttled.value == "power cap, software thermal slowdown"
    idle = look(Machine(commands={"nvidia-smi": line.replace("24\n", "01\n")}), UNKNOWN)
    assert idle.gpu_throttled.value == "none"
    broken = describe_machine(Machine(commands={"nvidia-smi": "NVIDIA-SMI has failed"}))
    assert broken.gpu.missing == "nvidia-smi says: NVIDIA-SMI has failed"


def test_what_cannot_be_read_has_a_reason() -> None:
    machine, state = describe_machine(Machine()), look(Machine(), UNKNOWN)
    readings = [value for value in (*dict(machine).values(), *dict(state).values()) if isinstance(value, Reading)]
    assert len(readings) > 12
    assert all(item.value is not None or item.missing for item in readings)
    assert state.temperatures["all"].missing == "no /sys/class/thermal/thermal_zone*"


def stat(user: int, idle: int) -> dict[str, str]:
    return {"/proc/stat": f"cpu  {user} 5 100 {idle} 10 0 0 0 0 0\ncpu0 1 2 3 4"}


def test_what_other_processes_used() -> None:
    system = Machine(files=stat(1000, 5000))
    use = CpuUse(system, ticks=100)
    system.files = stat(1600, 5400)
    assert use.others(own_seconds=4.0).value == pytest.approx((600 - 400) / 1000)
    assert use.others(own_seconds=40.0).value == 0
    assert CpuUse(Machine(), ticks=100).others(0).missing == "/proc/stat cannot be read"


def rapl(*joules: int) -> dict[str, str]:
    files = {f"{RAPL}:0:0/name": "core", f"{RAPL}:0:0/energy_uj": "1", f"{RAPL}:9/name": "psys"}
    for number, value in enumerate(joules):
        files |= {
            f"{RAPL}:{number}/name": f"package-{number}",
            f"{RAPL}:{number}/energy_uj": str(value),
            f"{RAPL}:{number}/max_energy_range_uj": "1000000000",
        }
    return files


def test_rapl_adds_packages_and_survives_the_end_of_its_range() -> None:
    system = Machine(files=rapl(10_000_000, 999_000_000))
    (meter,), _ = find_meters(system)
    meter.start()
    system.files = rapl(12_500_000, 4_000_000)
    assert meter.stop() == pytest.approx(2.5 + 5.0)
    system.files = {}
    assert meter.stop() is None


def test_rapl_for_root_only_and_no_meter_at_all() -> None:
    closed = {path: text for path, text in rapl(1).items() if path != f"{RAPL}:0/energy_uj"}
    meters, reason = find_meters(Machine(files=closed))
    assert meters == []
    assert reason == f"{RAPL}:0/energy_uj can be read by root only"
    meters, reason = find_meters(Machine())
    assert meters == []
    assert "no RAPL" in reason


def test_a_jetson_has_tegrastats_and_a_desktop_nvidia_smi() -> None:
    (jetson,), _ = find_meters(Machine(commands={"tegrastats": "", "nvidia-smi": ""}))
    assert jetson.source.startswith("tegrastats")
    cpu, gpu = find_meters(Machine(files=rapl(1), commands={"nvidia-smi": ""}))[0]
    assert isinstance(cpu, RaplMeter)
    assert gpu.source.startswith("nvidia-smi")
    assert (jetson.gpu_only, cpu.gpu_only, gpu.gpu_only) == (False, False, True)


@pytest.mark.parametrize(
    ("line", "parse", "watts"),
    [
        (TEGRASTATS, tegrastats_watts, 4.988),
        ("VDD_GPU_SOC 2000mW/2000mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 4000mW/4000mW", tegrastats_watts, 6.8),
        ("RAM 2448/7620MB", tegrastats_watts, None),
        (" 35.21\n", nvidia_smi_watts, 35.21),
        ("[N/A]", nvidia_smi_watts, None),
    ],
)
def test_power_in_a_line(line: str, parse: Callable[[str], float | None], watts: float | None) -> None:
    assert parse(line) == watts


def test_a_program_that_prints_power(tmp_path: Path) -> None:
    """It prints two readings and a line without one, and then waits to be ended."""
    code = "import time; print('10'); print('[N/A]'); print('30', flush=True); time.sleep(60)"
    meter = PowerMeter("example", [sys.executable, "-c", code], nvidia_smi_watts)
    meter.start()
    while len(meter.readings) < 2:
        pass
    joules = meter.stop()
    assert joules == pytest.approx(20 * meter.seconds)
    silent = PowerMeter("example", [sys.executable, "-c", "pass"], nvidia_smi_watts)
    silent.start()
    assert silent.stop() is None


def test_this_machine() -> None:
    """Whatever it is, it is described, and nothing is started but the programs that exist."""
    system: Any = System()
    assert describe_machine(system).cpus >= 1
    assert look(system, UNKNOWN).load_average.value is not None
