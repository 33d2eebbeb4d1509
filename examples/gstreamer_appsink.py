"""derain between an appsink and an appsrc, with GStreamer's Python bindings.

They come with Debian's python3-gi and gir1.2-gst-plugins-base-1.0.
Run: python gstreamer_appsink.py "videotestsrc num-buffers=90" "autovideosink"
A virtual environment sees the system's `gi` when it was made with --system-site-packages.
"""

import sys

import gi
import numpy as np

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

import derain  # noqa: E402

SOURCE, SINK = sys.argv[1], sys.argv[2]
Gst.init(None)
take = Gst.parse_launch(f"{SOURCE} ! videoconvert ! video/x-raw,format=BGR ! appsink name=out max-buffers=1 sync=false")
give = Gst.parse_launch(f"appsrc name=in is-live=true format=time block=true max-buffers=2 ! videoconvert ! {SINK}")
appsink, appsrc = take.get_by_name("out"), give.get_by_name("in")
# Only a live source has no preroll. Its newest frame wins; a file's frames wait instead, and none is lost.
live = take.set_state(Gst.State.PAUSED) == Gst.StateChangeReturn.NO_PREROLL
appsink.set_property("drop", live)
take.set_state(Gst.State.PLAYING)
# ONNX Runtime: OpenVINO crashed in a process that had loaded GStreamer before it.
with derain.load("nano", backend="onnxruntime") as model:
    while (sample := appsink.emit("pull-sample")) is not None:
        caps = sample.get_caps()
        if appsrc.get_property("caps") is None:
            appsrc.set_property("caps", caps)
            give.set_state(Gst.State.PLAYING)
        buffer, form = sample.get_buffer(), caps.get_structure(0)
        height, width = form.get_value("height"), form.get_value("width")
        mapped, info = buffer.map(Gst.MapFlags.READ)
        rows = np.frombuffer(info.data, np.uint8).reshape(height, -1)  # rows are padded to four bytes
        clean = model(rows[:, : 3 * width].reshape(height, width, 3))
        buffer.unmap(info)
        padded = np.zeros_like(rows)
        padded[:, : 3 * width] = clean.reshape(height, -1)
        result = Gst.Buffer.new_wrapped(padded.tobytes())
        result.pts, result.duration = buffer.pts, buffer.duration
        appsrc.emit("push-buffer", result)
appsrc.emit("end-of-stream")
if appsrc.get_property("caps") is not None:  # something was pushed, and must reach the sink
    give.get_bus().timed_pop_filtered(30 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
for pipeline in (take, give):
    pipeline.set_state(Gst.State.NULL)
