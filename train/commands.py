"""``derain train``, ``derain eval`` and ``derain synth``. Heavy packages are imported where a command runs."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain.errors import UsageError
from derain.files import atomic_path

if TYPE_CHECKING:
    from rich.table import Table

    from derain.train.evaluation import Derain, Summary
    from derain.train.rain.degradation import Synthesiser


_LAYOUT = Annotated[
    str | None,
    typer.Option(
        help="How the pairs are named: paired, rain100, rain1400, outdoor_rain, spa, suffixes, rain800, rainy_left or "
        "rainy_right. Default: whichever fits."
    ),
]

# The backslash keeps rich from taking the names for markup.
_SPLIT_HELP = "JSON file of held-out pictures: {folder: \\[names]}. A folder of pairs stands for both of its sides."


class Precision(str, Enum):
    """Arithmetic of training."""

    FULL = "32-true"
    BF16 = "bf16-mixed"
    DOUBLE = "64-true"


class Device(str, Enum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Renderer(str, Enum):
    """The two families of synthetic rain."""

    NOISE = "noise"
    PARTICLES = "particles"


def register(app: typer.Typer) -> None:
    """Add this stage's commands to the command line."""
    app.command("train")(train)
    app.command("eval")(evaluate)
    app.command("synth")(synth)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A shipped recipe (such as edge or nano) or a .toml file. --qat needs none."),
    ] = None,
    rainy: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of rainy pictures, unpaired. Repeatable. DIR@2 is drawn from twice as often as DIR."),
    ] = None,
    clean: Annotated[list[Path] | None, typer.Option(help="Folder of clean pictures. Repeatable.")] = None,
    pairs: Annotated[list[Path] | None, typer.Option(help="Folder of pairs. Repeatable.")] = None,
    layout: _LAYOUT = None,
    split: Annotated[Path | None, typer.Option(help=_SPLIT_HELP)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run. Default: runs/RECIPE.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the folder's checkpoint, exactly; begin where there is none yet."),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CKPT|ONNX|NAME",
            help="Begin with the weights of another run's checkpoint, of an exported or shipped model, where they fit.",
        ),
    ] = None,
    qat: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Fine-tune this checkpoint for INT8, by its own recipe, gently.")
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(metavar="ONNX", help="With --qat: derain calibrate's INT8 file, whose arithmetic to train for."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number of steps.")] = None,
    device: Annotated[Device, typer.Option(help="auto takes the GPU where there is one.")] = Device.AUTO,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="How many GPUs or processes. Default: as many as torchrun started, or one."),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16-mixed is faster on GPUs since Ampere and CPUs with AMX.")
    ] = Precision.FULL,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the networks.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 1,
    compile_: Annotated[bool, typer.Option("--compile", help="Run the networks through torch.compile.")] = False,
) -> None:
    """Train a system from rainy and clean pictures: unpaired, paired or both."""
    from derain.models import resolve
    from derain.train.data.folders import gather
    from derain.train.machine import Machine
    from derain.train.qat_setup import read_ranges, recipe_for
    from derain.train.recipe import parse_recipe, read_recipe_text, shipped_recipes
    from derain.train.trainer import Trainer

    if (qat is None) != (ranges is None):
        raise UsageError("--qat CKPT and --ranges ONNX go together", fix="Give both: see docs/calibration.md")
    if qat is not None and (init is not None or compile_ or precision is Precision.BF16):
        raise UsageError("--qat was given with --init, --compile or bf16-mixed", expected="--qat without these")
    if recipe is None and qat is None:
        raise UsageError(
            "There is no recipe",
            expected=f"a .toml file or one of {', '.join(shipped_recipes())}",
            fix="Name one, such as: derain train edge --rainy FOLDER --clean FOLDER",
        )
    text = recipe_for(qat, steps) if recipe is None and qat is not None else read_recipe_text(str(recipe))
    if steps is not None:
        text = re.sub(r"(?m)^steps\s*=.*$", f"steps = {steps}", text, count=1)
    name = parse_recipe(text, recipe or "--qat").name
    pictures = gather(rainy or (), clean or (), pairs or (), split, layout)
    machine = Machine(device.value, devices, precision.value, threads, workers, compile_)
    folder = out or Path("runs") / (Path(recipe).stem if recipe else name)
    held = None if ranges is None else read_ranges(ranges)
    begin_from = qat if init is None else Path(init) if init.endswith(".ckpt") else resolve(init)
    trainer = Trainer(text, pictures, folder, machine, resume=resume, begin_from=begin_from, quantization=held)
    checkpoint = trainer.run()
    if trainer.first_process:
        typer.echo(checkpoint)


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint (.ckpt), an .onnx file, or a shipped model's name.")],
    data: Annotated[list[Path] | None, typer.Option(help="Folder of pairs. Repeatable.")] = None,
    layout: _LAYOUT = None,
    dry: Annotated[
        list[Path] | None, typer.Option(help="Folder of dry pictures: how much does the model change them? Repeatable.")
    ] = None,
    rainy: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of rainy pictures without ground truth: is their rain told from dry weather? Repeatable."
        ),
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option(help="Video, or folder of its frames: how much does the result flicker? Repeatable."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Measure only what this split file holds out.")] = None,
    check_overlap: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Refuse to measure on scenes of this training folder. Repeatable."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures of every picture here.")] = None,
) -> None:
    """Measure PSNR and SSIM under both protocols, on pairs and on dry pictures, and how well rain is told from dry."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from derain.train.data.overlap import refuse_overlap
    from derain.train.evaluation import RainOfSet, as_pairs, held_out_only, look_at_rain, measure, summarise, tell_rain

    sets = [(path, as_pairs(path, layout=layout)) for path in data or ()]
    sets += [(path, as_pairs(path, dry=True)) for path in dry or ()]
    showers = [(path, as_pairs(path, dry=True)) for path in rainy or ()]
    if not sets and not showers and not video:
        raise UsageError(
            "There is nothing to evaluate on",
            fix="Give --data FOLDER of pairs, --dry FOLDER of dry pictures, --rainy FOLDER of rainy ones, "
            "--video FILE, or several of them",
        )
    if split is not None:
        sets, showers = (
            [(path, held_out_only(pairs, path, split, layout)) for path, pairs in given] for given in (sets, showers)
        )
    for folder in check_overlap or ():
        refuse_overlap([pair for _, pairs in sets for pair in pairs], folder, layout)
    derain = _load(model)
    table = Table(title=f"{Path(model).name}, PSNR in dB, in brackets: the input")
    for column in ("set", "protocol", "n", "PSNR", "SSIM", "attention"):
        table.add_column(column, no_wrap=column != "set")
    report: list[dict[str, Any]] = []
    rain: list[RainOfSet] = []
    dry_sets = set(dry or ())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Evaluating", total=sum(len(pairs) for _, pairs in [*sets, *showers]))
        for path, pairs in sets:
            is_dry, name = path in dry_sets, _set_name(path, split)
            scores = measure(derain, pairs, progress=lambda: progress.advance(task))
            for summary in summarise(scores):
                chosen = [score for score in scores if score.protocol == summary.protocol]
                table.add_row(name, summary.protocol, str(summary.images), *_cells(summary, is_dry))
                pictures = [asdict(score) for score in chosen]
                report.append({"set": name, "dry": is_dry, **asdict(summary), "pictures": pictures})
            rain.append(RainOfSet(name, is_dry, [s.attention for s in chosen], [s.cell for s in chosen]))
        for path, photographs in showers:
            seen = look_at_rain(derain, [one.rainy for one in photographs], lambda: progress.advance(task))
            rain.append(RainOfSet(_set_name(path, split), False, *seen))
    console = Console()
    if sets:
        console.print(table)
    verdict = tell_rain(rain)
    if verdict is not None:
        console.print(verdict.sentence)
    flicker = [_flicker(derain, path) for path in video or ()]
    if flicker:
        console.print(_flicker_table(flicker))
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            document = {
                "model": Path(model).name,
                "attention_auc": verdict and verdict.auc,
                "rain_half": verdict and verdict.half,
                "rain": [asdict(one) for one in rain],
                "results": report,
                "video": flicker,
            }
            temporary.write_text(json.dumps(document, indent=1) + "\n")


def synth(
    clean: Annotated[Path, typer.Argument(help="Folder of clean pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rainy/, clean/ and manifest.json.")],
    renderer: Annotated[
        Renderer | None,
        typer.Option(help="noise (the default): motion-blurred noise; particles: falling drops in a camera."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--from", metavar="CKPT", help="Instead of a renderer, the rain maker of a trained system."),
    ] = None,
    rainy: Annotated[
        Path | None, typer.Option(help="Folder of rainy pictures whose rain --from puts on the clean ones.")
    ] = None,
    regime: Annotated[str | None, typer.Option(help="One kind of rain of the noise renderer, such as heavy.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other rain.")] = 1,
    per_picture: Annotated[int, typer.Option(min=1, max=1000, help="Rains on each picture.")] = 1,
) -> None:
    """Put synthetic rain on clean pictures and write a paired set with a manifest."""
    from rich.console import Console
    from rich.progress import Progress

    from derain.images import list_images
    from derain.train.rain.learned import LearnedRain
    from derain.train.synthesis import write_pairs

    rain, origin = _rain_maker(renderer, checkpoint, rainy, regime)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Raining", total=len(list_images(clean)) * per_picture)
        manifest = write_pairs(
            clean, out, rain, origin, seed=seed, per_picture=per_picture, progress=lambda: progress.advance(task)
        )
    typer.echo(manifest)
    if isinstance(rain, LearnedRain) and (complaint := rain.complaint()):
        typer.echo(complaint, err=True)


def _rain_maker(
    renderer: Renderer | None, checkpoint: Path | None, rainy: Path | None, regime: str | None
) -> tuple[Synthesiser, dict[str, Any]]:
    """What the options of ``derain synth`` ask for, and what the manifest says of it."""
    from derain.train.rain.learned import LearnedRain
    from derain.train.rain.particles import ParticleRain
    from derain.train.rain.synthesiser import NoiseRain, NoiseRainConfig

    if checkpoint is not None or rainy is not None:
        if checkpoint is None or rainy is None or renderer is not None or regime is not None:
            raise UsageError(
                "--from CKPT and --rainy FOLDER go together, without --renderer and --regime",
                fix="Give the checkpoint of a rain maker and rainy pictures to take the rain from",
            )
        learned = LearnedRain(checkpoint, rainy)
        return learned, {"name": "learned", **learned.origin}
    if renderer is Renderer.PARTICLES:
        if regime is not None:
            raise UsageError("--regime is for the noise renderer", fix="Leave it out, or use --renderer noise")
        return ParticleRain(), {"name": "particles", "regime": None}
    return NoiseRain(NoiseRainConfig(weights={regime: 1.0} if regime else {})), {"name": "noise", "regime": regime}


def _set_name(folder: Path, split: Path | None) -> str:
    """``Rain100L/test`` of a folder that is called test, ``RainFog`` of one that has a name of its own."""
    parts = folder.resolve().parts
    name = "/".join(parts[-2:] if parts[-1].lower() in ("train", "test", "val", "validation") else parts[-1:])
    return name + (" held out" if split else "")


def _cells(summary: Summary, dry: bool) -> list[str]:
    psnr, ssim = f"{summary.psnr:.2f}", f"{summary.ssim:.4f}"
    if not dry:
        psnr, ssim = f"{psnr} ({summary.input_psnr:.2f})", f"{ssim} ({summary.input_ssim:.4f})"
    return [psnr, ssim, f"{summary.attention:.4f}"]


def _flicker(derain: Derain, path: Path) -> dict[str, Any]:
    """Flicker of a video's input, of the result, and of the result steadied as by ``derain run --steady``."""
    from derain.runtime.steady import measure_video

    plain, steadied = measure_video(lambda picture: derain(picture)[0], path)
    return {
        "video": str(path),
        "pairs": plain.pairs,
        "input": plain.input,
        "output": plain.output,
        "steadied": steadied.output,
    }


def _flicker_table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("video", "pairs", "input", "output", "steadied", title="Flicker, levels of 255 along the motion")
    for row in rows:
        figures = (f"{row[key]:.2f}" for key in ("input", "output", "steadied"))
        table.add_row(row["video"], str(row["pairs"]), *figures)
    return table


def _load(model: str) -> Derain:
    if model.endswith(".ckpt"):
        from derain.train.checkpoint import load_deployable
        from derain.train.evaluation import module_derainer
        from derain.train.qat import restore_quantization

        network, info = load_deployable(Path(model))
        restore_quantization(network, info)
        return module_derainer(network)
    import derain

    loaded = derain.load(model)
    return lambda picture: loaded(picture, attention=True)
