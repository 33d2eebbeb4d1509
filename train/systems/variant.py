"""What the configs of systems with an ``edge`` and a ``full`` size have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from typing_extensions import Self

from derain.train.systems.base import SystemConfig


class VariantConfig(SystemConfig):
    """Subclasses add ``network``, which sizes the ``edge`` variant, and ``full``, which sizes the other."""

    variant: Literal["edge", "full"] = "edge"

    @model_validator(mode="after")
    def _only_the_table_that_counts(self) -> Self:
        unused = "full" if self.variant == "edge" else "network"
        if unused in self.model_fields_set:
            raise ValueError(f"table '{unused}' has no effect with variant '{self.variant}': leave it out")
        return self
