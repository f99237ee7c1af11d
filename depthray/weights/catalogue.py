"""The catalogue of published weights: where each is, whose terms it has, what it was trained on and what it fits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from depthray.errors import UsageError, did_you_mean

FILE = Path(__file__).parent / "catalogue.yaml"
BY_THE_HUB = "verified by the hub's own digest at download"


class CatalogueEntry(BaseModel):
    """One published file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"[a-z0-9_]+")  # no slash and no suffix, so that it is never a path
    # wheel:DISTRIBUTION/FILE (in the folder of packages), https://..., or hf:OWNER/REPO@REVISION/FILE
    source: str = Field(pattern=r"(wheel:|https://|hf:)\S+")
    family: str
    licence: str  # as its publisher states it
    commercial: bool | None  # whether that licence allows commercial use
    trained_on: str
    input: str  # the size that it was trained at
    megabytes: float  # about
    sha256: str = Field("", pattern=r"([0-9a-f]{8,64})?")  # all digits or the first ones; "" where none is sure
    depth: Literal["", "metric", "relative"] = ""  # of a depth estimator
    max_depth: float | None = None  # metres of its last layer
    fits: str  # keys of a recipe
    note: str = ""

    @property
    def digest(self) -> str:
        """What is known of the file's SHA-256, for people."""
        if not self.sha256:
            return BY_THE_HUB
        return self.sha256 if len(self.sha256) == 64 else f"{self.sha256}... (the first digits, of the file's name)"


@cache
def entries() -> tuple[CatalogueEntry, ...]:
    """All entries, in the order of the file."""
    return tuple(CatalogueEntry.model_validate(tree) for tree in yaml.safe_load(FILE.read_text(encoding="utf-8")))


def find(name: str, *, where: str) -> CatalogueEntry:
    """The entry of a name. Raises UsageError, beginning with `where`, for an unknown one."""
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        near = did_you_mean(name, known)
        raise UsageError(
            f"{where}: no such weights in the catalogue{near if 'did you mean' in near else ''}; "
            "`depthray weights list` shows it, and a file or run is given by its path, ./NAME"
        )
    return known[name]
