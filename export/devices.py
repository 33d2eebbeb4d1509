"""Roofline estimates for devices that were not measured: always called estimates, always with their arithmetic.

Peak figures are dense rates as the manufacturer publishes them; where it names a range by accumulator width, the lower.
"""

from __future__ import annotations

from dataclasses import dataclass

from derain.export.cost import GraphCost

ACHIEVED = 0.30  # share of peak that a small convolutional network was found to reach on TensorRT: 25 to 35 %


@dataclass(frozen=True)
class Device:
    """Peak rates: multiply and add count as two operations."""

    name: str
    fp16_tflops: float
    int8_tops: float | None
    gigabytes_per_second: float


DEVICES = (
    Device("Orin Nano 8GB Super", 17, 33, 102),
    Device("Orin NX 16 Super (GPU)", 19, 38, 102),
    Device("AGX Orin 64 (GPU)", 43, 85, 205),
    Device("Thor T5000", 259, None, 273),
    Device("RTX 3060", 26, 102, 360),
    Device("RTX 4090", 165, 660, 1008),
    Device("L4", 121, 242, 300),
)


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
    """Estimates for float16 and INT8 on every device of the table.

    Args:
        cost: at the size of interest.
        stored_bytes: of one value in the measured graph: 4 for float32, 2 for float16, 1 for INT8. Memory traffic is
            scaled from it to the precision estimated.
    """
    found = []
    for device in DEVICES:
        for precision, rate, size in (("float16", device.fp16_tflops, 2), ("int8", device.int8_tops, 1)):
            if rate is None:
                continue
            traffic = cost.traffic_bytes * size / stored_bytes
            found.append(Estimate(device.name, precision, 2 * cost.macs, rate, traffic, device.gigabytes_per_second))
    return found
