"""The protocol of data sets: frames, and samples by the index of their frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data
    from depthray.data.columns.shard_numbers import ShardNumbers

# batch.py has these too, but imports torch, which takes seconds and which checking a recipe does not need.
INPUTS = ("image", "background", "sparse", "semantics", "instances", "mask")
TARGETS = ("depth", "mask")
LABELS = ("teacher", "sigma")  # a teacher's depth and its standard deviation in metres, 0 where there is none
MADE_BY = ("labelled_by", "predicted_by")  # keys of a provenance: the network that made labels, or depth
MEASURABLE = "measurable"  # whether there is a depth to measure, where a data set has a map of it
YES, NO = 1, 2  # its values; 0: not known
ALWAYS = ("image", "depth", "intrinsics", MEASURABLE, *LABELS)
DERIVED = ("sparse",)  # derived from depth by the loader, not read
RESTART = "start again when nothing writes to the data any more"  # the advice where a file has changed


class Frame(NamedTuple):
    """The facts of a frame that are known without reading it."""

    id: str
    scene: str
    split: str  # "" = undeclared, else train, val or test
    source: str


# The memory (H,W[,3]) of a dtype that a map, by its key, may be read into; None where it may not.
Place = Callable[[str, tuple[int, ...], str], "NDArray[Any] | None"]


class DataTerms(NamedTuple):
    """What a publisher says of a data set: what its frames show, and on which terms they may be used."""

    places: str
    licence: str  # "" where it is not known


def frame_text(frame: Frame) -> str:
    """A frame as text for fingerprints; not its `repr`, which would change with the name of the class."""
    # Checkpoints record fingerprints with this text: changed, they would refuse their own data.
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
        """SHA-256 that changes when the frames change; a missing file is a DataError."""

    def read(self, index: int) -> Sample:
        """The sample of a frame; a DataError if it is missing, unreadable or inconsistent."""

    def faults(self, index: int) -> list[str]:
        """Odd things about a stored frame that `read` accepts all the same, one sentence each."""


@runtime_checkable
class EncodedSource(Protocol):
    """A source whose depth is stored as numbers of some unit."""

    def encoding(self, index: int) -> str:
        """How a frame's depth is stored: a name of `encodings.ENCODINGS`, or text where the form has its own unit."""

    def stored_depth(self, index: int) -> NDArray[Any]:
        """(H,W) or (H,W,1) depth of a frame as stored, not yet metres; a DataError as from `Source.read`."""


@runtime_checkable
class StoredSource(Protocol):
    """A source whose samples can be had before their depth is made metres, which is half of the bytes."""

    def read_stored(self, index: int, place: Place | None = None) -> Sample:
        """The sample of a frame, its depth in stored steps, with `depth_scale`.

        What needs no change may be read into the memory of `place`, and is then the very array that it gave.
        """


@runtime_checkable
class ShardedSource(Protocol):
    """A source whose frames are in shards, which may have to be downloaded before they are read."""

    remote: bool  # whether they have to be downloaded

    @property
    def shard_numbers(self) -> ShardNumbers | NDArray[np.int64]:
        """The number of the shard of each frame; frames are in the order of their shards."""

    def download(self, number: int) -> None:
        """Download a shard to this node where it is remote, for reading it soon."""

    def hold(self, numbers: Iterable[int]) -> None:
        """Open shards in this process, so that processes forked from it can read them as well."""

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where this node has no space for these shards at once."""


@runtime_checkable
class JoinedSets(Protocol):
    """A source of the frames of several data sets, one set after the other."""

    def set_of(self, index: int) -> int:
        """The number of the data set of a frame."""


@runtime_checkable
class RecordedSource(Protocol):
    """A source whose files say where its frames came from."""

    def provenance(self) -> Mapping[str, Any]:
        """What the first of them says: `labelled_by` and `predicted_by` are the network that made labels or depth."""


@runtime_checkable
class TimedSource(Protocol):
    """A source whose frames were recorded, each at a time."""

    def recorded_at(self, index: int) -> tuple[str, int]:
        """The name of the recording of a frame, and its time there in nanoseconds."""


def notes(source: Source) -> tuple[str, ...]:
    """What a source has left out, frames or maps, and why, one sentence each."""
    return tuple(getattr(source, "notes", ()))


def keys_to_read(section: Data) -> frozenset[str]:
    """The keys to read: what training always needs, the declared inputs and targets. The rest would only cost time."""
    return frozenset((*ALWAYS, *section.inputs, *section.targets))


def refuse_encoding(section: Data) -> None:
    """For a form that states the unit of its depth itself: a UsageError if the recipe declares one all the same."""
    default = type(section).model_fields["encoding"].default
    # The default is let through: the recipe that states it looks like one that states nothing.
    if section.encoding != default:
        raise UsageError(
            f"data.encoding={section.encoding}: data.source={section.source} states its own unit; leave the key out"
        )
