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
    from derain.train.evaluation import Derain, Summary


class Precision(str, Enum):
    """Arithmetic of training."""

    FULL = "32-true"
    BF16 = "bf16-mixed"


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
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (such as edge or nano) or a .toml file.")],
    rainy: Annotated[list[Path] | None, typer.Option(help="Folder of rainy pictures, unpaired. Repeatable.")] = None,
    clean: Annotated[list[Path] | None, typer.Option(help="Folder of clean pictures. Repeatable.")] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(help="Folder with rainy/ and clean/ of equal names. Repeatable.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON file of held-out pictures: {folder: [names]}.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run. Default: runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint, exactly.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number of steps.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="How many GPUs or processes.")] = 1,
    precision: Annotated[
        Precision, typer.Option(help="bf16-mixed is faster on GPUs since Ampere and CPUs with AMX.")
    ] = Precision.FULL,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the networks.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 1,
) -> None:
    """Train a system from rainy and clean pictures: unpaired, paired or both."""
    from derain.train.data.folders import gather
    from derain.train.recipe import read_recipe_text
    from derain.train.trainer import Machine, Trainer

    text = read_recipe_text(recipe)
    if steps is not None:
        text = re.sub(r"(?m)^steps\s*=.*$", f"steps = {steps}", text, count=1)
    pictures = gather(rainy or (), clean or (), pairs or (), split)
    machine = Machine(device, devices, precision.value, threads, workers)
    trainer = Trainer(text, pictures, out or Path("runs") / Path(recipe).stem, machine, resume=resume)
    typer.echo(trainer.run())


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint (.ckpt), an .onnx file, or a shipped model's name.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder with rainy/ and clean/ of equal names. Repeatable.")
    ] = None,
    dry: Annotated[
        list[Path] | None, typer.Option(help="Folder of dry pictures: how much does the model change them? Repeatable.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Measure only what this split file holds out.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures of every picture here.")] = None,
) -> None:
    """Measure PSNR and SSIM under both protocols, on pairs and on dry pictures."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from derain.train.evaluation import as_pairs, held_out_only, measure, summarise

    sets = [(path, as_pairs(path)) for path in data or ()]
    sets += [(path, as_pairs(path, dry=True)) for path in dry or ()]
    if not sets:
        raise UsageError(
            "There is nothing to evaluate on", fix="Give --data FOLDER of pairs, --dry FOLDER of dry pictures, or both"
        )
    if split is not None:
        sets = [(path, held_out_only(pairs, path, split)) for path, pairs in sets]
    derain = _load(model)
    table = Table(
        "set", "protocol", "pictures", "PSNR", "SSIM", "input PSNR", "input SSIM", title=f"{model}, PSNR in dB"
    )
    report: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Evaluating", total=sum(len(pairs) for _, pairs in sets))
        for path, pairs in sets:
            scores = measure(derain, pairs, progress=lambda: progress.advance(task))
            for summary in summarise(scores):
                table.add_row(str(path), summary.protocol, str(summary.images), *_cells(summary))
                report.append({"set": str(path), **asdict(summary), "pictures": []})
                report[-1]["pictures"] = [asdict(score) for score in scores if score.protocol == summary.protocol]
    Console().print(table)
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps({"model": model, "results": report}, indent=1) + "\n")


def synth(
    clean: Annotated[Path, typer.Argument(help="Folder of clean pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rainy/, clean/ and manifest.json.")],
    renderer: Annotated[
        Renderer, typer.Option(help="noise: motion-blurred noise; particles: falling drops in a camera.")
    ] = Renderer.NOISE,
    regime: Annotated[str | None, typer.Option(help="One kind of rain of the noise renderer, such as heavy.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other rain.")] = 1,
    per_picture: Annotated[int, typer.Option(min=1, max=1000, help="Rains on each picture.")] = 1,
) -> None:
    """Put synthetic rain on clean pictures and write a paired set with a manifest."""
    from rich.console import Console
    from rich.progress import Progress

    from derain.images import list_images
    from derain.train.rain.degradation import Synthesiser
    from derain.train.rain.particles import ParticleRain
    from derain.train.rain.synthesiser import NoiseRain, NoiseRainConfig
    from derain.train.synthesis import write_pairs

    rain: Synthesiser
    if renderer is Renderer.PARTICLES:
        if regime is not None:
            raise UsageError("--regime is for the noise renderer", fix="Leave it out, or use --renderer noise")
        rain = ParticleRain()
    else:
        rain = NoiseRain(NoiseRainConfig(weights={regime: 1.0} if regime else {}))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Raining", total=len(list_images(clean)) * per_picture)
        manifest = write_pairs(
            clean,
            out,
            rain,
            {"name": renderer.value, "regime": regime},
            seed=seed,
            per_picture=per_picture,
            progress=lambda: progress.advance(task),
        )
    typer.echo(manifest)


def _cells(summary: Summary) -> list[str]:
    values = (summary.psnr, summary.ssim, summary.input_psnr, summary.input_ssim)
    return [f"{value:.{2 + i % 2 * 2}f}" for i, value in enumerate(values)]


def _load(model: str) -> Derain:
    if model.endswith(".ckpt"):
        from derain.train.checkpoint import load_deployable
        from derain.train.evaluation import module_derainer

        return module_derainer(load_deployable(Path(model))[0])
    import derain

    loaded = derain.load(model)

    def run(picture: Any) -> Any:
        return loaded(picture)

    return run
