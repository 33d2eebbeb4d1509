"""A checkpoint to an ONNX file: traced, verified, described by its card, and only then written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from derain.card import CARD_KEY, Cost, ModelCard, Profile
from derain.companions import beside
from derain.cost import measure
from derain.errors import ExportError, UsageError
from derain.export.cells import camera_graph
from derain.export.contract import Part
from derain.export.describe import describe
from derain.export.figures import read_figures
from derain.export.graph import CameraGraph
from derain.export.half import to_half
from derain.export.options import ExportOptions
from derain.export.parity import compare, judge
from derain.export.pictures import parity_pictures
from derain.export.trace import check, trace
from derain.files import atomic_path
from derain.images import list_images
from derain.train.checkpoint import CheckpointInfo, load_deployable
from derain.train.deployable import Deployable

if TYPE_CHECKING:
    import onnx

# Sizes of the whole frame that the companion of a tile graph takes: up to 8K UHD.
FRAME_PROFILE = Profile(min=(1, 64, 64), opt=(1, 1080, 1920), max=(1, 4320, 7680))
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """One finished model, not yet written."""

    model: onnx.ModelProto
    card: ModelCard


def export_checkpoint(
    checkpoint: Path, output: Path, options: ExportOptions, *, part: Part = "whole", say: Progress = lambda _: None
) -> ModelCard:
    """Export one part of a checkpoint's deployable into one file.

    Returns:
        The card that was written into it.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ExportError: the graph cannot be made or differs from PyTorch; nothing is written then.
        UsageError: the network has no such part, or the options do not fit it.
    """
    check_early(output, options)
    network, info = load_deployable(checkpoint)
    exported = build(network, info, options, part=part, say=say)
    write(exported, output)
    return exported.card


def export_tiled(
    checkpoint: Path, output: Path, options: ExportOptions, *, say: Progress = lambda _: None
) -> tuple[Path, Path]:
    """Export the tiled form: a graph for tiles, and a companion that gives the whole frame's context once per frame.

    Args:
        checkpoint: of a network with whole-frame context.
        output: the tile graph; the companion goes beside it, as ``NAME.context.onnx``, and its card names it.
        options: the profile is that of the tiles; the companion takes whole frames, from 64x64 to 7680x4320.
        say: told each step.

    Returns:
        The two files, tiles first.
    """
    check_early(output, options)
    network, info = load_deployable(checkpoint)
    companion = output.with_name(f"{output.stem}.context{output.suffix}")
    for path, exported in _tiled_form(network, info, options, output, companion, say).items():
        write(exported, path)
    return output, companion


def export_with_companions(
    checkpoint: Path, output: Path, options: ExportOptions, *, say: Progress = lambda _: None
) -> tuple[Path, ...]:
    """Export the whole network and, beside it, the parts that the rain gate and tiling run alone.

    The attention extractor, where the network has one, and the tiled form, where tiles need the frame's context; see
    :func:`derain.companions.beside` for their names. All are made and compared before the first is written.

    Returns:
        The files, the whole network first.
    """
    check_early(output, options)
    network, info = load_deployable(checkpoint)
    made = {output: build(network, info, options, say=say)}
    if network.spec.attention == "learned":
        made[beside(output, "attention")] = build(network, info, options, part="attention", say=say)
    if network.spec.tiling == "needs_context":
        tile, context = beside(output, "tile"), beside(output, "context")
        made.update(_tiled_form(network, info, options, tile, context, say))
    for path, exported in made.items():
        write(exported, path)
    return tuple(made)


def _tiled_form(
    network: Deployable,
    info: CheckpointInfo | None,
    options: ExportOptions,
    tile: Path,
    context: Path,
    say: Progress,
) -> dict[Path, Exported]:
    whole = replace(options, profile=FRAME_PROFILE)
    return {
        tile: build(network, info, options, part="tile", companion=context.name, say=say),
        context: build(network, info, whole, part="context", companion=tile.name, say=say),
    }


def build(
    network: Deployable,
    info: CheckpointInfo | None,
    options: ExportOptions,
    *,
    part: Part = "whole",
    companion: str | None = None,
    say: Progress = lambda _: None,
) -> Exported:
    """Trace, verify and describe a network; nothing is written.

    Args:
        network: any deployable, evaluation mode.
        info: of its checkpoint; None for a network that was not trained.
        options: what to make.
        part: of the network.
        companion: name of the other file of a tiled form.
        say: told each step in a few words.
    """
    _check_sizes(network, options)
    graph = camera_graph(network, options.contract, part).eval()
    fixed = options.profile.opt if options.profile.fixed else None
    say("tracing")
    model = trace(graph, fixed)
    if options.half:
        model = to_half(model)
        check(model, graph)
    say("comparing with PyTorch on pictures")
    plain = CameraGraph(network, options.contract, part).eval()
    parity = compare(plain, model, parity_pictures(options.pictures), options.profile)
    judge(parity, network.spec.variant, half=options.half, what=f"{network.spec.system} ({network.spec.variant})")
    card = describe(graph, info, options, parity, companion)
    cost = measure(model, card, options.profile.opt)
    card = card.model_copy(
        update={"cost": Cost(parameters=cost.parameters, kmac_per_pixel=round(cost.kmac_per_pixel, 4))}
    )
    if options.tensorrt:
        say(f"building with TensorRT-RTX for {', '.join(options.tensorrt)}")
        card = _verified_by_tensorrt(model, card, options.tensorrt)
    set_card(model, card)
    return Exported(model, card)


def set_card(model: onnx.ModelProto, card: ModelCard) -> None:
    """Put a card into a model's metadata, in place of any that is there; other metadata stays."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != CARD_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (CARD_KEY, card.to_json())]:
        model.metadata_props.add(key=key, value=value)


def write(exported: Exported, output: Path) -> None:
    """Write a model atomically."""
    with atomic_path(output) as temporary:
        temporary.write_bytes(exported.model.SerializeToString())


def check_early(output: Path, options: ExportOptions) -> None:
    """Refuse before the work what would fail after it.

    Raises:
        UsageError: not an ``.onnx`` name, or a compute capability that TensorRT-RTX does not know.
        DataError: a report of ``derain eval`` that is none.
        MediaError: a folder of pictures that cannot be read.
        MissingDependencyError: TensorRT-RTX is asked for and not installed.
    """
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"The output is '{output}'", expected="a file name ending in .onnx")
    for report in options.figures:
        read_figures(report)
    if options.pictures is not None:
        list_images(options.pictures)
    if options.tensorrt:
        from derain.export.verify_trt import require_capability

        for capability in options.tensorrt:
            require_capability(capability)


def _check_sizes(network: Deployable, options: ExportOptions) -> None:
    if options.contract.frames == "nv12":
        for batch, height, width in (options.profile.min, options.profile.opt, options.profile.max):
            if height % 2 or width % 2:
                raise UsageError(f"NV12 frames of {width}x{height}x{batch} do not exist", expected="even sides")
    if network.training:
        raise ExportError("The network is in training mode", expected="evaluation mode", fix="Call network.eval()")


def _verified_by_tensorrt(model: onnx.ModelProto, card: ModelCard, capabilities: tuple[str, ...]) -> ModelCard:
    from derain.export.verify_trt import verify

    assert card.parity is not None
    statement = verify(model, card, capabilities)
    parity = card.parity.model_copy(update={"verified_with": [*card.parity.verified_with, statement]})
    return card.model_copy(update={"parity": parity})
