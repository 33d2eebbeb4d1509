"""The result of a benchmark as it is written to JSON, and read back with care: files come from other machines.

``docs/benchmarks/schema.json`` is made of these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from derain.card import Quality
from derain.documents import parse_document
from derain.errors import DataError
from derain.files import atomic_path, check_size

SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES = 64 << 20
_MOST_SAMPLES = 1_000_000
_MAKE_AGAIN = "Make one with: derain bench --json"

Text = Annotated[str, Field(max_length=4000)]
Milliseconds = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=65536)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reading(_Part):
    """What was read from the machine, or why it could not be read."""

    value: bool | int | float | str | None = None
    missing: Text | None = Field(default=None, description="the reason, where there is no value")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.value is None) == (self.missing is None):
            raise ValueError("either a value or the reason why there is none")
        return self


class Machine(_Part):
    """What does not change during a run. No host name and no user."""

    cpu: Reading
    architecture: Text
    cores: Reading = Field(description="physical cores that the process may use")
    cpus: int = Field(ge=1, description="hardware threads that the process may use")
    memory_bytes: Reading
    system: Text
    board: Reading = Field(description="of a Jetson")
    jetpack: Reading
    gpu: Reading
    gpu_driver: Reading
    versions: dict[Text, Reading] = Field(description="of derain, Python and the inference engines")


class Conditions(_Part):
    """The state of the machine at one moment."""

    load_average: Reading = Field(description="of the last minute")
    busy_others: Reading = Field(
        description="share of all CPUs that other processes used: in one second before, while frames were timed after"
    )
    cpu_clock_mhz: Reading = Field(description="mean over the CPUs")
    cpu_clock_max_mhz: Reading
    governor: Reading
    gpu_clock_mhz: Reading
    power_mode: Reading = Field(description="of a Jetson: nvpmodel")
    jetson_clocks: Reading = Field(description="whether a Jetson's GPU clock is fixed at its maximum")
    temperatures: dict[Text, Reading] = Field(description="degrees Celsius by zone")
    cpu_throttled: Reading = Field(description="times since start-up that a core was slowed down for its heat")
    gpu_throttled: Reading = Field(description="reasons that slow the GPU down now")


class Latency(_Part):
    """Milliseconds for one frame, array in to array out."""

    frames: int = Field(ge=1)
    mean: Milliseconds
    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds
    max: Milliseconds


class StepTime(_Part):
    """One step of a frame's way; ``median`` and ``p99`` in milliseconds, None where it cannot be told apart."""

    median: Milliseconds | None = None
    p99: Milliseconds | None = None
    note: Text = ""


class Split(_Part):
    """Where the time of a frame goes, in the order of the steps."""

    copy_in: StepTime
    pre: StepTime = Field(description="frame to the graph's input")
    inference: StepTime
    post: StepTime = Field(description="the graph's output to frame")
    copy_out: StepTime


class StartUp(_Part):
    """From nothing to the first frame."""

    load_seconds: float | None = Field(default=None, ge=0, description="opening the model; includes a build")
    first_frame_ms: Milliseconds | None = None
    build_seconds: Reading = Field(description="of the engine, when it was built")


class Memory(_Part):
    """Of the candidate's own process; a GPU's memory is not in it."""

    peak_bytes: Reading = Field(description="largest resident set, frames and Python included")
    before_bytes: Reading = Field(description="before the model was opened")


class Energy(_Part):
    """While the candidate alone ran frames one after the other."""

    source: Text
    watts: float = Field(ge=0)
    joules_per_frame: float = Field(ge=0)
    frames: int = Field(ge=1)
    seconds: float = Field(gt=0)


class Batch(_Part):
    """Inference alone, several frames in one call."""

    size: int = Field(ge=1)
    latency: Latency | None = Field(description="for the whole batch; None where the model refuses it")
    frames_per_second: float | None = Field(ge=0)
    refused: Text = ""


class Streams(_Part):
    """Several streams through one model, each always with a frame ready."""

    streams: int = Field(ge=1)
    frames: int = Field(ge=1)
    seconds: float = Field(gt=0)
    frames_per_second: float = Field(ge=0, description="of all streams together")
    fairness: float = Field(ge=0, le=1, description="frames of the stream with fewest to that with most")
    age_p50_ms: Milliseconds = Field(description="frame ready to result delivered; the worst stream's")
    age_p99_ms: Milliseconds


class EndToEnd(_Part):
    """A video file decoded, derained and encoded. Stages run side by side; milliseconds for a frame."""

    video: Text
    frames: int = Field(ge=1)
    seconds: float = Field(gt=0)
    frames_per_second: float = Field(ge=0)
    peak_bytes: Reading | None = Field(
        default=None, description="largest resident set of the process, after the file; None in results of before"
    )
    stages: dict[Text, StepTime]


class Candidate(_Part):
    """What is measured, and how it answered."""

    model: Text
    file: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    precision: Literal["float32", "float16", "float8", "int8"] | None
    kmac_per_pixel: float | None = Field(default=None, ge=0)
    quality: list[Quality] = Field(default=[], description="from the model card")
    backend: Text
    device: Text
    chosen: Text = Field(description="why this backend")
    threads: int | None = Field(ge=1)
    tile: int | None = Field(default=None, ge=1)
    start_up: StartUp
    warm_up_frames: int = Field(ge=0)
    warm_up_stable: bool
    latency: Latency
    frames_per_second: float = Field(ge=0, description="frames one after the other; for trtexec: over the whole run")
    split: Split
    memory: Memory
    energy: list[Energy] = []
    energy_missing: Text | None = None
    batches: list[Batch] = []
    streams: list[Streams] = []
    end_to_end: EndToEnd | None = None
    samples_ms: list[Milliseconds] = Field(
        min_length=1, max_length=_MOST_SAMPLES, description="in the order of the rounds, which all candidates share"
    )

    @property
    def key(self) -> tuple[str, str, int | None, int | None]:
        """What makes two candidates of different files the same one."""
        return (f"{self.model} {self.precision or ''}".strip(), self.backend, self.threads, self.tile)

    @property
    def label(self) -> str:
        """For tables and plots."""
        model = self.model if self.precision in (None, "float32") else f"{self.model} {self.precision}"
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        tile = "" if self.tile is None else f", tiles of {self.tile}"
        return f"{model}, {self.backend}{threads}{tile}"


class BenchResult(_Part):
    """One run of ``derain bench``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    source: Literal["derain", "trtexec"]
    derain_version: Text
    date: Text = Field(description="UTC, ISO 8601, when it began")
    command: Text
    width: Side | None
    height: Side | None
    seed: int
    machine: Machine | None = Field(description="None for trtexec's times, which do not tell")
    before: Conditions | None
    after: Conditions | None
    warnings: list[Text] = []
    candidates: list[Candidate] = Field(min_length=1, max_length=1000)


def known(value: bool | float | str | None, otherwise: str) -> Reading:
    """A value, or the reason why there is none."""
    return Reading(missing=otherwise) if value is None else Reading(value=value)


def write_result(result: BenchResult, path: Path) -> None:
    """Write a result as JSON.

    Raises:
        OSError, UsageError: the place cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_result(path: Path) -> BenchResult:
    """Read what :func:`write_result` wrote.

    Raises:
        DataError: missing, too large, not JSON, of a newer derain, or not of the schema.
    """
    check_size(path, MAX_FILE_BYTES, DataError)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error})", expected="a file of derain bench --json") from error
    return parse_document(text, BenchResult, f"The result '{path}'", DataError, _MAKE_AGAIN, SCHEMA_VERSION)
