"""What all sections of a recipe have in common, and the kinds of numbers in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0, strict=True)]  # strict: `true` is not a number of epochs
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(gt=0, le=8192, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # torch takes seeds as int64
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Of sections in which a key of today decides what versions before it did in one way only: the keys of those
    # versions, and what they did. Saved recipes list all keys, which is how one of theirs is recognised.
    keys_before: ClassVar[frozenset[str]] = frozenset()
    values_before: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_as_saved(cls, tree: Any) -> Any:
        """A recipe saved by an older version keeps its meaning: resumed runs train as before."""
        is_older = isinstance(tree, dict) and cls.keys_before and cls.keys_before <= tree.keys()
        return {**cls.values_before, **tree} if is_older else tree
