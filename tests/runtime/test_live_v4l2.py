"""A V4L2 camera made of the kernel's v4l2loopback: what one program writes into it, the live source reads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from derain.runtime.live.addresses import parse_address
from derain.runtime.live.gstreamer import GStreamerPush
from derain.runtime.media.items import Frame

DRIVERS = Path("/sys/class/video4linux")
SIZE = (160, 120)


@pytest.fixture
def loopback() -> str:
    for device in sorted(DRIVERS.glob("video*")):
        if (device / "name").read_text().startswith(("Dummy video device", "OBS Virtual Camera", "derain")):
            return f"/dev/{device.name}"
    pytest.skip("no V4L2 loopback device: as root, modprobe v4l2loopback card_label=derain exclusive_caps=1")


def test_a_loopback_camera(loopback: str) -> None:
    """Not run where this was written: its kernel has no such module."""
    over = threading.Event()
    push = GStreamerPush(f"video/x-raw,format=YUY2 ! v4l2sink device={loopback}", SIZE)

    def write() -> None:
        while not over.is_set():
            push.write(np.full((SIZE[1], SIZE[0], 3), (20, 40, 230), np.uint8))
            over.wait(1 / 30)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with parse_address(f"v4l2://{loopback}").open() as source:
            frames = [item for item, _ in zip(source, range(10), strict=False) if isinstance(item, Frame)]
    finally:
        over.set()
        writer.join()
        push.close()
    assert [frame.index for frame in frames] == list(range(10))
    assert frames[-1].pixels.shape == (SIZE[1], SIZE[0], 3)
    np.testing.assert_allclose(frames[-1].pixels.mean(axis=(0, 1)), (20, 40, 230), atol=8)
