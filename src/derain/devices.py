"""Roofline estimates for devices that were not measured: always called estimates, always with their arithmetic.

Peak figures are dense rates as the manufacturer publishes them; where it names a range by accumulator width, the lower.
"""

from __future__ import annotations

from dataclasses import dataclass

from derain.cost import GraphCost
from derain.errors import UsageError

ACHIEVED = 0.30  # share of peak that a small convolutional network was found to reach on TensorRT
ACHIEVED_RANGE = (0.25, 0.35)  # what was found from network to network
STORED_BYTES = {"float32": 4, "float16": 2, "float8": 1, "int8": 1}
ESTIMATE_COLUMNS = ("device", "precision", "GOP / TOP/s = ms", "MB / GB/s = ms", "floor ms", f"at {ACHIEVED:.0%} ms")
ESTIMATE_NOTE = (
    "Estimates, not measurements. Peak rates of the device against the operations and bytes of the convolutions; all "
    f"else is taken as fused and free. floor: the slower of the two at peak; at {ACHIEVED:.0%}: with that share of it."
)


@dataclass(frozen=True)
class Device:
    """Peak rates: multiply and add count as two operations.

    Attributes:
        key: what a user types.
        reports: how the board or the GPU names itself, in part.
    """

    key: str
    name: str
    reports: str
    fp16_tflops: float
    int8_tops: float | None
    gigabytes_per_second: float


DEVICES = (
    Device("orin-nano", "Orin Nano 8GB Super", "Orin Nano", 17, 33, 102),
    Device("orin-nx", "Orin NX 16 Super (GPU)", "Orin NX", 19, 38, 102),
    Device("agx-orin", "AGX Orin 64 (GPU)", "AGX Orin", 43, 85, 205),
    Device("thor", "Thor T5000", "Thor", 259, None, 273),
    Device("rtx-3060", "RTX 3060", "RTX 3060", 26, 102, 360),
    Device("rtx-4090", "RTX 4090", "RTX 4090", 165, 660, 1008),
    Device("l4", "L4", "NVIDIA L4", 121, 242, 300),
)


def find_device(key: str) -> Device:
    """The device of that key.

    Raises:
        UsageError: it is not in the table.
    """
    for device in DEVICES:
        if device.key == key.strip().lower():
            return device
    raise UsageError(f"There is no device '{key}' in the table", expected=", ".join(device.key for device in DEVICES))


@dataclass(frozen=True)
class Estimate:
    """One run of the graph on a device. Times in milliseconds.

    Attributes:
        operations: of the convolutions and matrix products; two per multiply-accumulate.
        tera_operations: the device's peak, per second.
        traffic: bytes that the heavy layers read and write.
        gigabytes: the device's peak, per second.
    """

    device: str
    precision: str
    operations: int
    tera_operations: float
    traffic: float
    gigabytes: float

    @property
    def compute(self) -> float:
        """Time of the arithmetic at peak."""
        return self.operations / (self.tera_operations * 1e12) * 1e3

    @property
    def memory(self) -> float:
        """Time of the memory traffic at peak."""
        return self.traffic / (self.gigabytes * 1e9) * 1e3

    @property
    def floor(self) -> float:
        """No run can be faster: the slower of the two at peak."""
        return max(self.compute, self.memory)

    @property
    def expected(self) -> float:
        """With the share of peak that such networks reach."""
        return self.floor / ACHIEVED


def estimate(cost: GraphCost, stored_bytes: int) -> list[Estimate]:
    """Estimates for float16 and INT8 on every device of the table; see :func:`estimate_on`."""
    return [item for device in DEVICES for item in estimate_on(device, cost, stored_bytes)]


def estimate_on(device: Device, cost: GraphCost, stored_bytes: int) -> list[Estimate]:
    """Estimates for float16 and, where the device has it, INT8.

    Args:
        cost: at the size of interest.
        stored_bytes: of one value in the measured graph, see ``STORED_BYTES``. Memory traffic is scaled from it to the
            precision estimated.
    """
    found = []
    for precision, rate in (("float16", device.fp16_tflops), ("int8", device.int8_tops)):
        if rate is not None:
            traffic = cost.traffic_bytes * STORED_BYTES[precision] / stored_bytes
            found.append(Estimate(device.name, precision, 2 * cost.macs, rate, traffic, device.gigabytes_per_second))
    return found


def estimate_row(item: Estimate) -> tuple[str, ...]:
    """An estimate as the cells of ``ESTIMATE_COLUMNS``."""
    return (
        item.device,
        item.precision,
        f"{item.operations / 1e9:.1f} / {item.tera_operations:g} = {item.compute:.2f}",
        f"{item.traffic / 1e6:.0f} / {item.gigabytes:g} = {item.memory:.2f}",
        f"{item.floor:.2f}",
        f"{item.expected:.1f}",
    )
