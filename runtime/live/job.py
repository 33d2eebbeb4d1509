"""A live job: sources, one model for all of them, a gate and a sink for each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from derain.runtime import compare
from derain.runtime.gate import GateMode, GateSettings, RainGate
from derain.runtime.live.addresses import Address
from derain.runtime.live.outputs import open_sink, output_of, require_places
from derain.runtime.live.rain_log import RainLog
from derain.runtime.live.replay import Replay
from derain.runtime.live.sinks import LiveSink
from derain.runtime.live.stream import Policy, Reconnect, StreamSpec
from derain.runtime.media.codecs import Codec
from derain.runtime.media.items import Frame, Source
from derain.runtime.model import Derainer
from derain.runtime.parts import PartModel
from derain.runtime.pipeline import Derained
from derain.runtime.ports import Picture, RainMap
from derain.runtime.steady import SteadyFilter


@dataclass(frozen=True)
class LiveOptions:
    """How streams are treated.

    Attributes:
        output: as :func:`derain.runtime.live.outputs.open_sink` takes it; with several streams it holds ``{name}``, or
            is a folder (exists, or ends in ``/``) in which each stream records ``NAME.mp4``. None for no output.
        policy: None for ``drop-oldest`` with live sources and ``block`` with files.
        once: a live source that ends in order is not opened again.
        replay: files play like cameras, in their own time and for ever.
        side_by_side: write original and result beside each other.
        keep_map: give the rain map with each result.
        steady: strength of the filter against flicker, 0 for none.
    """

    output: str | None = None
    policy: Policy | None = None
    replay: bool = False
    once: bool = False
    gate: GateMode = "off"
    gate_settings: GateSettings = field(default_factory=GateSettings)
    side_by_side: bool = False
    keep_map: bool = False
    steady: float = 0.0
    codec: Codec = "h264"
    crf: int = 21
    reconnect: Reconnect = field(default_factory=Reconnect)


def with_distinct_names(addresses: Sequence[Address]) -> list[Address]:
    """The same addresses, numbered where names are equal: two cameras of one host are ``host`` and ``host-2``."""
    seen: Counter[str] = Counter()
    named = []
    for address in addresses:
        seen[address.name] += 1
        number = seen[address.name]
        named.append(address if number == 1 else dataclasses.replace(address, name=f"{address.name}-{number}"))
    return named


def inference(
    model: Derainer, look: PartModel | None, mode: GateMode, settings: GateSettings, keep_map: bool, steady: float = 0.0
) -> Callable[[Frame], Derained]:
    """One stream's way from frame to result: a rain gate around the model, and a filter against flicker.

    Args:
        look: the model's attention part, None where there is none.
        keep_map: give the rain map with each result.
        steady: strength of the filter, 0 for none.
    """
    channel = None if look is None else look.port("attention").name

    def derain(pixels: Picture, attention: bool) -> tuple[Picture, RainMap | None]:
        return model(pixels, attention=True) if attention else (model(pixels), None)

    def measure(pixels: Picture) -> RainMap:
        assert look is not None
        found: RainMap = look(pixels)[channel or ""][0]
        return found

    half = model.card.rain_half
    gate = RainGate(derain, None if look is None else measure, mode, settings, keep_map=keep_map, half=half)
    if not steady:
        return gate
    calm = SteadyFilter(steady)
    return lambda frame: calm(gate(frame))


def stream_specs(
    addresses: Sequence[Address],
    model: Derainer,
    options: LiveOptions,
    look: PartModel | None = None,
    log: RainLog | None = None,
) -> list[StreamSpec]:
    """What :class:`derain.runtime.live.run.LiveRun` takes.

    Raises:
        UsageError: several streams would write to one output, or the output makes no sense.
    """
    addresses = with_distinct_names(addresses)
    if options.output is not None:
        require_places(options.output, len(addresses))
    return [_spec(address, model, options, look, log) for address in addresses]


def _spec(
    address: Address, model: Derainer, options: LiveOptions, look: PartModel | None, log: RainLog | None
) -> StreamSpec:
    live = address.live or options.replay
    sink: LiveSink | None = None
    if options.output is not None:
        sink = open_sink(output_of(options.output, address.name), options.codec, options.crf, live)

    def deliver(derained: Derained, seconds: float) -> None:
        if log is not None:
            log.add(address.name, derained.frame.index, seconds, derained.intensity, derained.gated)
        if sink is not None:
            pixels = derained.clean
            if options.side_by_side:
                pixels = compare.side_by_side(derained.frame.pixels, derained.clean)
            sink.write(pixels, seconds)

    def replayed() -> Source:
        return Replay(address.open)

    reconnect = dataclasses.replace(options.reconnect, leave=address.kind != "fifo", after_end=not options.once)
    return StreamSpec(
        name=address.name,
        open=replayed if options.replay and not address.live else address.open,
        infer=inference(model, look, options.gate, options.gate_settings, options.keep_map, options.steady),
        deliver=deliver,
        finish=(lambda: None) if sink is None else sink.close,
        policy=options.policy or (None if live else "block"),
        reconnect=reconnect if live else None,
    )
