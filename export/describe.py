"""The model card of an exported graph: from the network's declaration, its checkpoint, and what was asked for."""

from __future__ import annotations

from derain import __version__
from derain.card import (
    ContextReading,
    Cost,
    Geometry,
    ModelCard,
    Parity,
    Precision,
    Quality,
    TrainedRanges,
    Training,
)
from derain.export.figures import read_figures, read_rain_half
from derain.export.graph import CameraGraph
from derain.export.options import ExportOptions
from derain.export.trace import OPSET
from derain.rain_intensity import USUAL_HALF
from derain.train.checkpoint import CheckpointInfo

LICENCE = "Apache-2.0 (the weights carry the terms of the data they were trained on, see training)"


def describe(
    graph: CameraGraph, info: CheckpointInfo | None, options: ExportOptions, parity: Parity, companion: str | None
) -> ModelCard:
    """The card of a graph, but for its cost, which is counted in the graph itself.

    Args:
        info: of the network's checkpoint; None for one that was not trained.
        companion: name of the other file of a tiled form.
    """
    spec = graph.network.spec
    return ModelCard(
        name=options.name or (info.name if info else f"{spec.system}-{spec.variant}"),
        system=spec.system,
        variant=spec.variant,
        description=info.description if info else "",
        part=graph.part,
        companion=companion,
        context_size=spec.context_size if graph.part in ("tile", "context") else None,
        context_reading=_context_reading(graph),
        yuv=options.contract.encoding,  # type: ignore[arg-type]
        inputs=options.contract.inputs(graph.part),
        outputs=options.contract.outputs(graph.part),
        attention=spec.attention,
        rain_half=read_rain_half(options.figures) or USUAL_HALF,
        geometry=Geometry(
            multiple_of=spec.multiple_of,
            minimum=2 if options.contract.frames == "nv12" else 1,  # whatever is smaller than the grid is padded
            receptive_field=spec.receptive_field,
            tiling=spec.tiling,
            tiling_reason=spec.tiling_reason,
        ),
        profile=options.profile,
        opset=OPSET,
        precision=Precision(kind="float16" if options.half else "float32"),
        cost=Cost(parameters=0, kmac_per_pixel=0.0),
        quality=_quality(info, options) if graph.part == "whole" else [],
        parity=parity,
        trained=_trained(info, options) if graph.part == "whole" else None,
        training=_training(info) if info else None,
        licence=LICENCE,
        derain_version=__version__,
    )


def _context_reading(graph: CameraGraph) -> ContextReading | None:
    reading = graph.network.spec.context_reading
    if graph.part != "context" or reading is None:
        return None
    return ContextReading(cell=reading[0], places=reading[1])


def _quality(info: CheckpointInfo | None, options: ExportOptions) -> list[Quality]:
    if options.figures:
        return [figure for report in options.figures for figure in read_figures(report)]
    return [Quality.model_validate(item) for item in info.quality] if info else []


def _trained(info: CheckpointInfo | None, options: ExportOptions) -> TrainedRanges | None:
    if info is None or info.quantization is None or options.half:
        return None
    return TrainedRanges.model_validate(info.quantization)


def _training(info: CheckpointInfo) -> Training:
    lineage = [
        f"{what} '{other['name']}' (SHA-256 {other['sha256'][:16]})"
        for what, other in (("begun from", info.begun_from), ("taught by", info.teacher))
        if other
    ]
    return Training(
        recipe=info.name,
        data=info.data,
        steps=info.step,
        seed=info.seed,
        minutes=info.minutes,
        notes="; ".join(lineage),
    )
