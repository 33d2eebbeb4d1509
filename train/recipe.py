"""Recipes: one TOML file says everything about a run but where the pictures are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from derain.documents import first_problem
from derain.errors import DataError, UsageError
from derain.files import check_size
from derain.train.data.batches import BatchConfig
from derain.train.systems import find_system
from derain.train.systems.base import SystemConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_RECIPE_BYTES = 1 << 20
_SHIPPED = Path(__file__).parent / "recipes"


class OptimizerConfig(BaseModel):
    """Adam for every parameter group, with one schedule: linear warm-up, then cosine or linear to ``final``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=8e-4, gt=0, le=1)
    discriminator_learning_rate: float = Field(default=1e-4, gt=0, le=1)
    betas: tuple[float, float] = (0.9, 0.99)
    discriminator_betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=500, ge=0, description="steps")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    hold: float = Field(default=0.0, ge=0, lt=1, description="fraction of the run before the decay starts")
    final: float = Field(default=0.01, ge=0, le=1, description="last learning rate as a fraction of the first")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    ema: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged weights that are exported")
    accumulate: int = Field(
        default=1, ge=1, le=256, description="batches whose gradients make one step: large batches in little memory"
    )


class DistilConfig(BaseModel):
    """The ``[distil]`` table: a trained network guides this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str = Field(min_length=1, description="the teacher's .ckpt, from the working directory")
    weight: float = Field(default=1.0, gt=0, description="L1 between the pictures of student and teacher")
    attention: float = Field(default=0.0, ge=0, description="L1 between their attention maps")
    features: float = Field(
        default=0.0, ge=0, description="squared difference between features of both, relative to the teacher's"
    )
    student_layer: str = Field(default="", description="where the student's features are, such as generator.stage")
    teacher_layer: str = Field(default="", description="where the teacher's are")

    @model_validator(mode="after")
    def _layers_where_needed(self) -> Self:
        if not bool(self.features) == bool(self.student_layer) == bool(self.teacher_layer):
            raise ValueError("features, student_layer and teacher_layer go together")
        return self


class Recipe(BaseModel):
    """A whole run but for its pictures: the top level of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str = Field(default="", max_length=2000)
    system: str
    seed: int = Field(default=1, ge=0)
    steps: int = Field(ge=1)
    validate_every: int = Field(default=1000, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    data: BatchConfig = BatchConfig()
    distil: DistilConfig | None = None
    config: dict[str, Any] = Field(default={}, description="the system's own table, checked by the system")

    def system_config(self) -> SystemConfig:
        """The system's own settings, validated.

        Raises:
            UsageError: the system does not exist, or a key is unknown or out of range.
        """
        try:
            return find_system(self.system).Config.model_validate(self.config)
        except ValidationError as error:
            raise _invalid(f"recipe '{self.name}', table [config]", error) from error


def _invalid(where: str, error: ValidationError) -> UsageError:
    return UsageError(f"In {where}: {first_problem(error)}", fix="See docs/training.md for what a recipe may hold")


def parse_recipe(text: str, origin: str) -> Recipe:
    """Validate a recipe and its system's settings.

    Raises:
        UsageError: not TOML, an unknown key, or a value out of range; the message names the key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Recipe '{origin}' is not TOML ({error})") from error
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise _invalid(f"recipe '{origin}'", error) from error
    recipe.system_config()
    return recipe


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_recipe_text(name: str) -> str:
    """The text of a shipped recipe by its name, or of a ``.toml`` file by its path.

    Raises:
        UsageError: neither exists.
        DataError: the file is empty or too large.
    """
    if name in shipped_recipes():
        return (_SHIPPED / f"{name}.toml").read_text()
    path = Path(name)
    if not path.is_file():
        raise UsageError(
            f"There is no recipe '{name}'", expected=f"a .toml file or one of {', '.join(shipped_recipes())}"
        )
    check_size(path, _MAX_RECIPE_BYTES, DataError)
    return path.read_text()
