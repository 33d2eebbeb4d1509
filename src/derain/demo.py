"""The command `derain demo`: a clip with moving rain, derained, measured and shown side by side. Needs no set-up.

The clip is a slow pan over a photograph with physical rain drawn over it, so the clean frames are known and PSNR can be
measured. Neither torch nor a compiler is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from derain.runtime.media.items import Frame, Item
    from derain.runtime.media.video_reader import VideoInfo
    from derain.runtime.model import Model
    from derain.runtime.pipeline import Derained
    from derain.runtime.statistics import RunStats

SAMPLE = Path(__file__).parent / "models" / "sample.jpg"
CREDIT = "photograph by danielbuechele, CC BY 2.0"
_RATE = 25
_WIDTH, _HEIGHT = 576, 384
_SEED = 5


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    *,
    source: Annotated[Path | None, typer.Option("--input", help="Your own video, picture or folder instead.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("derain-demo"),
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="Length of the clip that is made.")] = 4.0,
    model: Annotated[str, typer.Option(help="A shipped model (edge, nano) or an .onnx file.")] = "edge",
) -> None:
    """Derain a clip that is made on the spot (or your own), and show the result beside the original."""
    from derain.runtime.model import load

    with load(model) as opened:
        if source is None:
            _own_clip(opened, output, max(2, round(seconds * _RATE)))
        else:
            _users_clip(opened, source, output)


@dataclass(frozen=True)
class Clip:
    """Rainy frames and the clean ones beneath them, uint8 (H, W, 3) BGR."""

    rainy: list[NDArray[np.uint8]]
    clean: list[NDArray[np.uint8]]

    def __iter__(self) -> Iterator[Item]:
        from derain.runtime.media.items import Frame

        for index, pixels in enumerate(self.rainy):
            yield Frame(pixels, index, pts=index, duration=1)


def make_clip(frames: int) -> Clip:
    """A pan over the sample photograph in a downpour; the same on every machine and every call.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    import numpy as np

    from derain.images import read_image

    photograph = read_image(SAMPLE)
    # Imported after the picture was read: if OpenCV is missing, that says so.
    from derain.train.rain.particles import ParticleStorm, StormConfig

    config = StormConfig(rain_rate=90, exposure=1 / 80, backlight=5, aperture=0.0015, wind=1.2)
    storm = ParticleStorm((_HEIGHT, _WIDTH), config, np.random.default_rng(_SEED))
    clean = [_view(photograph, index / _RATE) for index in range(frames)]
    rainy = []
    for index, picture in enumerate(clean):
        rgb = (picture[..., ::-1] / np.float32(255)).astype(np.float32)
        rained = storm.frame(rgb, index / _RATE)[..., ::-1]
        rainy.append(np.ascontiguousarray(np.rint(np.clip(rained, 0, 1) * 255).astype(np.uint8)))
    return Clip(rainy, clean)


def _view(photograph: NDArray[np.uint8], time: float) -> NDArray[np.uint8]:
    """What a slowly swaying camera sees of the photograph; sub-pixel, so that the motion is smooth."""
    import cv2
    import numpy as np

    height, width = photograph.shape[:2]
    x = (width - _WIDTH) / 2 * (1 + 0.95 * math.sin(time * 0.6))
    y = (height - _HEIGHT) / 2 * (1 + 0.95 * math.sin(time * 0.9))
    shift = np.array([[1, 0, -x], [0, 1, -y]], np.float64)
    view: Any = cv2.warpAffine(
        photograph, shift, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(view, dtype=np.uint8)


def _own_clip(model: Model, folder: Path, frames: int) -> None:
    from rich.console import Console

    from derain.runtime.interrupt import stop_on_signals

    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(f"Drawing rain over the sample ({CREDIT}): {frames} frames of {_WIDTH} x {_HEIGHT} ...")
    clip = make_clip(frames)
    console.print(f"Deraining with {model.card.name} on {model.device} ({model.backend_reason}) ...")
    with stop_on_signals() as stop:
        stats, scores = derain_clip(model, clip, folder, stop)
    console.print(f"PSNR {scores.psnr_before:.2f} dB -> {scores.psnr_after:.2f} dB (y_matlab, mean of all frames)")
    console.print(f"SSIM {scores.ssim_before:.4f} -> {scores.ssim_after:.4f}")
    infer = stats.stages["infer"].median
    console.print(f"{1000 / infer:.1f} frames/s by the model (median), {stats.fps:.1f} frames/s with encoding")
    console.print(f"Video:   {folder / 'demo.mp4'}\nPicture: {folder / 'demo.png'}")
    if stats.stopped:
        raise typer.Exit(128 + (stop.signal_number or 0))


@dataclass(frozen=True)
class Scores:
    """Means over the frames, protocol ``y_matlab``, of the rainy and the derained frames against the clean ones."""

    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float


def derain_clip(model: Model, clip: Clip, folder: Path, stop: Any = None) -> tuple[RunStats, Scores]:
    """Derain a clip into ``folder/demo.mp4`` and ``folder/demo.png``, both side by side, and measure it."""
    import numpy as np

    from derain.images import write_image
    from derain.metrics import psnr, ssim
    from derain.runtime import pipeline
    from derain.runtime.compare import compared_width, side_by_side
    from derain.runtime.media.video_writer import VideoWriter

    derained: list[NDArray[np.uint8]] = []
    with VideoWriter(folder / "demo.mp4", _video_info(compared_width(_WIDTH))) as writer:

        def infer(frame: Frame) -> Derained:
            return pipeline.Derained(frame, model(frame.pixels))

        def deliver(outcome: pipeline.Outcome) -> None:
            if isinstance(outcome, pipeline.Derained):
                writer.write(side_by_side(outcome.frame.pixels, outcome.clean), outcome.frame)
                derained.append(outcome.clean)

        stats = pipeline.run(clip, infer, deliver, stop=stop)
    middle = len(derained) // 2
    write_image(folder / "demo.png", side_by_side(clip.rainy[middle], derained[middle]))
    triples = list(zip(clip.clean, clip.rainy, derained, strict=False))  # fewer were derained after Ctrl-C
    return stats, Scores(
        psnr_before=float(np.mean([psnr(rainy, clean, "y_matlab") for clean, rainy, _ in triples])),
        psnr_after=float(np.mean([psnr(result, clean, "y_matlab") for clean, _, result in triples])),
        ssim_before=float(np.mean([ssim(rainy, clean, "y_matlab") for clean, rainy, _ in triples])),
        ssim_after=float(np.mean([ssim(result, clean, "y_matlab") for clean, _, result in triples])),
    )


def _video_info(width: int) -> VideoInfo:
    from derain.runtime.media.colour import Colour
    from derain.runtime.media.orientation import Orientation
    from derain.runtime.media.video_reader import VideoInfo

    return VideoInfo(
        width=width,
        height=_HEIGHT,
        time_base=Fraction(1, _RATE),
        rate=Fraction(_RATE),
        aspect=Fraction(1),
        colour=Colour(space=1, range=1, primaries=1, transfer=1),  # BT.709, limited range
        orientation=Orientation(),
        carried=(),
        metadata={"comment": f"derain demo; {CREDIT}"},
    )


def _users_clip(model: Model, source: Path, folder: Path) -> None:
    from derain.images import write_image
    from derain.runtime.commands import run_with_progress
    from derain.runtime.job import Job
    from derain.runtime.media.items import Frame
    from derain.runtime.media.video_reader import VideoReader

    if source.is_dir():
        run_with_progress(Job(source, folder / source.resolve().name, side_by_side=True, force=True), model)
        return
    folder.mkdir(parents=True, exist_ok=True)
    result = run_with_progress(Job(source, folder, side_by_side=True, force=True), model)
    video = result.outputs[0]
    if video.suffix not in (".mp4", ".mkv", ".mov"):
        return
    with VideoReader(video) as reader:
        for item in reader:
            if isinstance(item, Frame) and item.index == result.stats.frames // 2:
                write_image(video.with_suffix(".png"), item.pixels)
                typer.echo(f"Wrote {video.with_suffix('.png')}")
                break
