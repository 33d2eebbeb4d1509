"""The model card: what a later stage must know about a model, carried inside its ONNX file.

The card is one JSON document under the key ``derain.card`` of the file's ``metadata_props``. No command guesses from a
file name or a key name: it reads the card. A card comes from outside, so its size and its schema are checked first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from derain.documents import parse_document
from derain.errors import ModelFileError
from derain.onnx_metadata import read_metadata
from derain.rain_intensity import USUAL_HALF

CARD_KEY = "derain.card"
SCHEMA_VERSION: Final = 1
MAX_CARD_BYTES = 256 * 1024

Text = Annotated[str, Field(max_length=4000)]
Side = Annotated[int, Field(ge=1, le=65536)]


class _Part(BaseModel):
    # Standard JSON has no number for the infinite PSNR of equal pictures: it is written as a string, and read back.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Port(_Part):
    """One input or output tensor of the graph."""

    name: Text
    layout: Literal["NHWC", "NCHW", "NHW", "NC"]
    dtype: Literal["uint8", "float32", "float16"]
    channels: Literal["BGR", "RGB", "Y", "UV", "attention", "context"]
    value_range: tuple[float, float] = Field(description="smallest and largest meaningful value")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.value_range
        if not low < high:
            raise ValueError(f"value_range {low:g}, {high:g}: the smallest value must come first")
        return self


class Geometry(_Part):
    """What sizes the network takes and how far a pixel sees. All lengths in pixels of the input."""

    multiple_of: Side = Field(description="stride of the network's grid; the graph pads to it by itself")
    minimum: Side = Field(description="smallest height and width of a frame, before padding")
    receptive_field: Side | None = Field(description="side of the square a pixel depends on; None: the whole frame")
    tiling: Literal["sound", "needs_context", "unsound"]
    tiling_reason: Text


class Profile(_Part):
    """Sizes (batch, height, width) the graph was exported for; equal sizes mean a fixed shape."""

    min: tuple[Side, Side, Side]
    opt: tuple[Side, Side, Side]
    max: tuple[Side, Side, Side]

    @property
    def fixed(self) -> bool:
        """Whether only one size is accepted."""
        return self.min == self.max

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for smallest, usual, largest in zip(self.min, self.opt, self.max, strict=True):
            if not smallest <= usual <= largest:
                raise ValueError(f"min <= opt <= max does not hold for {smallest}, {usual}, {largest}")
        return self


class Precision(_Part):
    """The arithmetic of the graph, and where its ranges come from."""

    kind: Literal["float32", "float16", "float8", "int8"]
    calibration: Text | None = Field(default=None, description="how the ranges were found; None for floats")


class Cost(_Part):
    """What the graph costs to store and to run."""

    parameters: int = Field(ge=0)
    kmac_per_pixel: float = Field(
        ge=0, allow_inf_nan=False, description="multiply-accumulates per input pixel / 1000, at the opt size"
    )


class Quality(_Part):
    """One measured figure; never written by hand."""

    dataset: Text
    protocol: Literal["y_matlab", "rgb"]
    images: int = Field(ge=1)
    psnr: float = Field(ge=0, description="dB; infinite when every picture equals its reference")
    ssim: float = Field(ge=-1, le=1.0001)
    input_psnr: float | None = Field(default=None, ge=0, description="dB, of the input against the same reference")
    input_ssim: float | None = Field(default=None, ge=-1, le=1.0001)
    measured: Literal["checkpoint", "export", "calibration"] = Field(description="the stage whose output was measured")


class Training(_Part):
    """Where the weights come from."""

    recipe: Text
    data: list[Text]
    steps: int = Field(ge=0)
    seed: int
    minutes: float | None = Field(default=None, ge=0, description="wall-clock minutes of training")
    notes: Text = ""


class Parity(_Part):
    """How the exported graph compares with the PyTorch module, on pictures."""

    pictures: int = Field(ge=1)
    sizes: list[Text]
    max_level_difference: float = Field(ge=0, description="of 255")
    differing_fraction: float = Field(ge=0, le=1)
    attention_max_difference: float = Field(ge=0)
    psnr: float | None = Field(default=None, description="dB, of the file's frames against PyTorch's; None: all equal")
    verified_with: list[Text] = Field(description="checker or engine and its version")


Magnitude = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Equalized(_Part):
    """Activations whose channels were divided by factors of their own before INT8 rounds them, by layer."""

    inputs: list[Text] = Field(description="layers whose rounded inputs they are")
    outputs: list[Text] = Field(default=[], description="layers whose rounded results they are")
    factors: list[Magnitude] = Field(description="by channel; the weights around hold the inverse")


class Calibration(_Part):
    """How a model of lower precision was made, and what that did to pictures that were held out. PSNR in dB, Y channel.

    Without ground truth there is no PSNR before and after, and the drop is what the difference from float32 would cost
    a picture of the quality that the card states.
    """

    ranges: Text | None = Field(default=None, description="method of the activations' ranges; None where it needs none")
    compared: dict[Text, float] = Field(
        default={},
        description="methods tried, to the drop (see below) of each with no layer kept, dB",
    )
    equalized: list[Equalized] = Field(default=[], description="channels that were made alike before they are rounded")
    selection: Text = Field(description="how the frames were chosen")
    frames: list[Text] = Field(description="SHA-256 of each frame's pixels, first 16 hexadecimal digits")
    int8: list[Text] = Field(default=[], description="layers that compute in INT8")
    float8: list[Text] = Field(default=[], description="layers that compute in FP8 E4M3")
    float16: list[Text] = Field(default=[], description="layers that compute in float16")
    float32: list[Text] = Field(default=[], description="layers that compute in float32")
    additions: list[Text] = Field(default=[], description="residual additions whose inputs are rounded to INT8")
    max_drop: float = Field(ge=0, description="limit that was asked for, dB")
    checked: int = Field(ge=1, description="held-out frames")
    paired: int = Field(ge=0, description="of those, with ground truth")
    dry: int = Field(default=0, ge=0, description="of those, without rain: compared with themselves")
    drop: float = Field(description="mean over the held-out frames of the group that loses most, dB")
    groups: dict[Text, float] = Field(default={}, description="sources, and dry frames, to their mean drop, dB")
    worst_drop: float
    worst_frame: Text
    psnr_before: float | None = None
    psnr_after: float | None = None
    ssim_before: float | None = None
    ssim_after: float | None = None
    mean_shift: float = Field(description="of the pictures' levels, of 255")
    banding: float = Field(ge=0, description="fraction of smooth areas with a new step of three levels or more")
    clipped_low: float = Field(description="change of the fraction of values at 0")
    clipped_high: float = Field(description="change of the fraction of values at 255")


class TrainedRanges(_Part):
    """The INT8 arithmetic that quantization-aware training held a network to, by layer; a magnitude is 127 steps.

    ``derain train --qat`` takes it from an INT8 file, and ``derain calibrate`` puts the same into the file it makes.
    """

    source: Text = Field(description="the INT8 file that the ranges came from: its model, and its SHA-256")
    inputs: dict[Text, list[Magnitude]] = Field(description="largest magnitude of each quantized input")
    outputs: dict[Text, Magnitude] = Field(
        default={}, description="of results that layers in float read after quantization too"
    )
    float16: list[Text] = Field(default=[], description="layers that compute in float16")
    equalized: list[Equalized] = Field(default=[], description="channels that are divided before they are rounded")


class ContextReading(_Part):
    """What of a large frame its context depends on; the rest of the frame can be left out.

    Along each side the frame is read at ``places`` evenly spread positions, each between its two nearest cells.
    """

    cell: int = Field(ge=1, le=64, description="side in pixels of the square cells of which it takes statistics")
    places: int = Field(ge=1, le=4096, description="positions along each side, those of half-pixel interpolation")


class ModelCard(_Part):
    """Everything a later stage may know about a model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Text
    system: Text
    variant: Text
    description: Text = ""
    part: Literal["whole", "attention", "tile", "context"] = "whole"
    companion: Text | None = Field(
        default=None, description="file name, beside this one, of the other half of a tiled form; None otherwise"
    )
    context_size: Side | None = Field(
        default=None, description="length of the context vector that a tile or context graph takes or gives"
    )
    context_reading: ContextReading | None = Field(
        default=None, description="of a context graph: which cells of the frame it reads; None: take it to read all"
    )
    yuv: Literal["bt601-limited", "bt601-full", "bt709-limited", "bt709-full"] | None = Field(
        default=None, description="colour encoding of NV12 inputs; None where there is no YUV"
    )
    inputs: list[Port] = Field(min_length=1, max_length=4)
    outputs: list[Port] = Field(min_length=1, max_length=4)
    attention: Literal["learned", "removed_rain"] = Field(
        description="learned: the extractor's map; removed_rain: |input - output|, for systems without an extractor"
    )
    rain_half: Magnitude = Field(
        default=USUAL_HALF,
        description="mean attention of a frame's median cell at which the rain intensity is one half",
    )
    geometry: Geometry
    profile: Profile
    opset: int = Field(ge=1)
    precision: Precision
    cost: Cost
    quality: list[Quality] = []
    parity: Parity | None = None
    calibration: Calibration | None = None
    trained: TrainedRanges | None = Field(
        default=None, description="of a float32 file whose network was trained for INT8; None otherwise"
    )
    training: Training | None = None
    licence: Text
    derain_version: Text

    def to_json(self) -> str:
        """The document that :func:`parse_card` reads back."""
        return self.model_dump_json()


def parse_card(text: str, origin: str) -> ModelCard:
    """Validate a card.

    Args:
        text: the JSON document.
        origin: the file it came from, for messages.

    Raises:
        ModelFileError: too large, not JSON, from a newer derain, or not of the schema.
    """
    if len(text) > MAX_CARD_BYTES:
        raise ModelFileError(
            f"The model card in '{origin}' has {len(text)} characters", expected=f"at most {MAX_CARD_BYTES}"
        )
    title, fix = f"The model card in '{origin}'", "Export the model again with: derain export"
    return parse_document(text, ModelCard, title, ModelFileError, fix, SCHEMA_VERSION)


def read_card(path: str | Path) -> ModelCard:
    """Read the card of an ONNX file without loading its weights; needs neither onnx nor onnxruntime.

    Raises:
        ModelFileError: the file is missing, empty, not ONNX, or has no valid card.
    """
    path = Path(path)
    text = read_metadata(path).get(CARD_KEY)
    if text is None:
        raise ModelFileError(
            f"'{path}' is an ONNX file without a derain model card",
            expected=f"metadata under the key '{CARD_KEY}'",
            fix="Use a file written by derain export",
        )
    return parse_card(text, str(path))
