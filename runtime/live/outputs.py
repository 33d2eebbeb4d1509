"""What the text of an output means: a recording, pictures, a server, a pipeline, a folder for several streams."""

from __future__ import annotations

from pathlib import Path

from derain.errors import UsageError
from derain.runtime.live.encoder import Encoder
from derain.runtime.live.jetson import JetsonRecording
from derain.runtime.live.sinks import GStreamerSink, LiveSink, NullSink, PictureSequence, Reopening
from derain.runtime.media.codecs import Codec
from derain.runtime.media.pictures import is_sequence

NAME = "{name}"
NULL = "null:"
_GSTREAMER, _JETSON = "gst:", "jetson:"


def is_path(target: str) -> bool:
    """Whether an output is a file, a folder or a picture sequence, and not a URL or a pipeline."""
    return "://" not in target and " ! " not in target and not target.startswith((_GSTREAMER, NULL, _JETSON))


def is_folder(output: str) -> bool:
    """Whether an output is a folder, there already or to be made."""
    return is_path(output) and (output.endswith("/") or Path(output).is_dir())


def output_of(output: str, name: str) -> str:
    """Where the stream of that name writes."""
    output = output.replace(NAME, name)
    return str(Path(output) / f"{name}.mp4") if is_folder(output) else output


def require_places(output: str, streams: int) -> None:
    """Refuse an output that several streams would share.

    Raises:
        UsageError: it neither holds ``{name}`` nor is a folder, nor ``null:``, nor a GStreamer element (a window each).
    """
    shared = output == NULL or output.startswith(_GSTREAMER)
    if streams > 1 and not shared and NAME not in output and not is_folder(output):
        raise UsageError(
            f"{streams} streams would write to '{output}'",
            expected=f"{NAME} in the output, for example 'out/{NAME}.mp4', or a folder",
        )


def require_free(output: str, name: str) -> None:
    """Refuse to write over a recording that exists.

    Raises:
        UsageError: the file, or the first picture of the sequence, is there.
    """
    target = output_of(output, name).removeprefix(_JETSON)
    if not is_path(target):
        return
    path = Path(target % 0 if is_sequence(target) else target)
    if path.is_file():
        raise UsageError(f"Output '{path}' exists already", fix="Give another name, or overwrite it with --force")


def open_sink(target: str, codec: Codec = "h264", crf: int = 21, live: bool = True) -> LiveSink:
    """The sink for an output.

    Args:
        target: a ``.mp4``, ``.mov`` or ``.mkv`` file; a picture sequence (``out/%06d.png``); a URL; a GStreamer
            pipeline (has `` ! ``, or starts with ``gst:`` for a single element such as ``gst:autovideosink``);
            ``jetson:FILE`` for the hardware encoder of a Jetson; or ``null:``.
        codec, crf: what videos are encoded with, and their quality as that encoder counts it.
        live: time is that of arrival; otherwise frames have the times of their file.

    Raises:
        UsageError: none of these, or a quality the codec does not know.
        MediaError: ``jetson:`` on a machine that has no such encoder.
    """
    if target == NULL:
        return NullSink()
    if target.startswith(_JETSON):
        return JetsonRecording(Path(target.removeprefix(_JETSON)), codec)
    if target.startswith(_GSTREAMER) or " ! " in target:
        return Reopening(lambda: GStreamerSink(target.removeprefix(_GSTREAMER), live))
    if "://" in target and not target.startswith("file://"):
        Encoder(target, codec, crf)  # a scheme that does not exist is told now, not at the first frame
        return Reopening(lambda: Encoder(target, codec, crf))
    target = target.removeprefix("file://")
    return PictureSequence(target) if is_sequence(target) else Encoder(Path(target), codec, crf)
