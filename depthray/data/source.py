"""What a form of data set gives: frames, and samples by their index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

# batch.py knows these too, but it costs an import of torch, which checking a recipe must not.
INPUTS = ("image", "background", "sparse", "semantics", "instances", "mask")
TARGETS = ("depth", "mask")
ALWAYS = ("image", "depth", "intrinsics")
DERIVED = ("sparse",)  # derived from depth by the loader, not read


class Frame(NamedTuple):
    """What is known of a frame without reading it."""

    id: str
    scene: str
    split: str  # "" = undeclared, else train, val or test
    source: str


def frame_text(frame: Frame) -> str:
    """A frame as text for fingerprints. Spelled out here, so that renaming the class changes no fingerprint."""
    return f"Frame(id={frame.id!r}, scene={frame.scene!r}, split={frame.split!r}, source={frame.source!r})"


class Source(Protocol):
    """Frames that can be read in any order from any process. Picklable; files are opened lazily in each process."""

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, in the order of their index."""

    @property
    def keys(self) -> frozenset[str]:
        """The keys every sample has."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the frames are; a missing file is a DataError."""

    def read(self, index: int) -> Sample:
        """The sample of a frame; a DataError if it is missing, unreadable or does not fit together."""

    def faults(self, index: int) -> list[str]:
        """What is odd about a stored frame though `read` accepts it, one sentence each."""


@runtime_checkable
class EncodedSource(Protocol):
    """What a source can tell besides whose depth lies in files as numbers of some unit."""

    def encoding(self, index: int) -> str:
        """How a frame's depth is stored: a name of `encodings.ENCODINGS`, or words where the form has its own unit."""

    def stored_depth(self, index: int) -> NDArray[Any]:
        """(H,W) or (H,W,1) depth of a frame in the numbers its file holds; a DataError as from `Source.read`."""


@runtime_checkable
class ShardedSource(Protocol):
    """What a source can do besides whose frames lie in shards, which may have to be fetched before they are read."""

    remote: bool  # whether they have to be

    @property
    def shard_numbers(self) -> NDArray[np.int64]:
        """The number of the shard of each frame."""

    def fetch(self, number: int) -> None:
        """Have a shard on this node, for reading it soon."""

    def hold(self, numbers: Iterable[int]) -> None:
        """Have shards on this node, and open here, so that processes forked from this one can read them as well."""

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where this node has no room for these shards at once."""


def notes(source: Source) -> tuple[str, ...]:
    """What a source has left out, and why, one sentence each, where it can tell."""
    return tuple(getattr(source, "notes", ()))


def keys_to_read(section: Data) -> frozenset[str]:
    """The keys to read: what training always needs, the declared inputs and targets. The rest would only cost time."""
    return frozenset((*ALWAYS, *section.inputs, *section.targets))


def refuse_encoding(section: Data) -> None:
    """For a form that states the unit of its depth itself: a UsageError if the recipe declares one all the same."""
    default = type(section).model_fields["encoding"].default
    if section.encoding != default:
        raise UsageError(
            f"data.encoding={section.encoding}: data.source={section.source} states its own unit; leave the key out"
        )
