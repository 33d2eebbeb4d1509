"""Real servers in processes of their own: GStreamer's RTSP server to be read from or recorded to, FFmpeg's RTMP one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_RTSP = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_service(sys.argv[1]); server.set_address("127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory(); factory.set_shared(True); factory.set_launch(sys.argv[2])
if sys.argv[3] == "record":
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
server.get_mount_points().add_factory("/camera", factory); server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""
_RTMP = """
import sys, av
print("ready", flush=True)
with av.open(sys.argv[1], options={"listen": "1"}, timeout=60) as container:
    for frame in container.decode(video=0):
        print(frame.width, frame.height, *frame.to_ndarray(format="bgr24").mean(axis=(0, 1)).round(), flush=True)
"""


def python_with_server() -> str | None:
    """An interpreter that has the bindings of GStreamer's RTSP server; usually the system's own."""
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if python and subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0:
            return python
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def camera(python: str, port: int, pattern: str = "red", width: int = 128) -> Iterator[subprocess.Popen[str]]:
    """A server of JPEG video at ``rtsp://127.0.0.1:PORT/camera``."""
    caps = f"video/x-raw,format=I420,height=96,framerate=15/1,width={width}"
    launch = f"( videotestsrc is-live=true pattern={pattern} ! {caps} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
    with _running([python, "-c", _RTSP, str(port), launch, "play"]) as process:
        yield process


@contextmanager
def recorder(python: str, port: int, file: str) -> Iterator[subprocess.Popen[str]]:
    """A server that takes H.264 at ``rtsp://127.0.0.1:PORT/camera``, and writes it to a file as it comes."""
    launch = (
        f"( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream ! filesink location={file} )"
    )
    with _running([python, "-c", _RTSP, str(port), launch, "record"]) as process:
        yield process


@contextmanager
def rtmp_server(url: str) -> Iterator[subprocess.Popen[str]]:
    """FFmpeg waiting for one publisher; prints width, height and mean colour of each frame."""
    with _running([sys.executable, "-c", _RTMP, url]) as process:
        yield process


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
