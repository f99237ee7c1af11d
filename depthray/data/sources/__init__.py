"""The forms a data set may have: one module of this folder each, found by its file name.

A module has `open_source(section) -> Source` and `fits(root) -> bool` (whether a path looks like this form).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.errors import DataError, UsageError, did_you_mean
from depthray.storage import remote as storage

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

# batch.py knows these too, but it costs an import of torch, which checking a recipe must not.
INPUTS = ("image", "background", "sparse", "semantics", "instances", "mask")
TARGETS = ("depth", "mask")
ALWAYS = ("image", "depth", "intrinsics")
MADE = ("sparse",)  # derived from depth by the loader, not read


class Frame(NamedTuple):
    """What is known of a frame without reading it."""

    id: str
    scene: str
    split: str  # "" = undeclared, else train, val or test
    source: str


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
class Stored(Protocol):
    """What a source can tell besides whose depth lies in files as numbers of some unit."""

    def encoding(self, index: int) -> str:
        """How a frame's depth is stored: a name of `encodings.ENCODINGS`, or words where the form has its own unit."""

    def stored_depth(self, index: int) -> NDArray[Any]:
        """(H,W) or (H,W,1) depth of a frame in the numbers its file holds; a DataError as from `Source.read`."""


@runtime_checkable
class Sharded(Protocol):
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


def names() -> list[str]:
    """The forms there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def check(section: Data, *, where: str) -> None:
    """Refuse an unknown source or encoding, and keys of the batch that are unknown, named twice or input and target."""
    if section.source not in names():
        raise UsageError(f"{where}: no data.source='{section.source}'{did_you_mean(section.source, names())}")
    encodings.check(section.encoding, where=where)
    for word, keys, known in (("inputs", section.inputs, INPUTS), ("targets", section.targets, TARGETS)):
        for key in keys:
            if key not in known:
                raise UsageError(f"{where}: data.{word} has unknown '{key}'{did_you_mean(key, known)}")
        if double := [key for key, count in Counter(keys).items() if count > 1]:
            raise UsageError(f"{where}: data.{word} names '{double[0]}' twice; once is enough")
    if both := [key for key in section.inputs if key in section.targets]:
        raise UsageError(f"{where}: '{both[0]}' is in data.inputs and data.targets; no network is taught its input")


def wanted(section: Data) -> frozenset[str]:
    """The keys to read: what training always needs, the declared inputs and targets. The rest would only cost time."""
    return frozenset((*ALWAYS, *section.inputs, *section.targets))


def refuse_encoding(section: Data) -> None:
    """For a form that states the unit of its depth itself: a UsageError if the recipe declares one all the same."""
    default = type(section).model_fields["encoding"].default
    if section.encoding != default:
        raise UsageError(
            f"data.encoding={section.encoding}: data.source={section.source} states its own unit; leave the key out"
        )


def open_source(section: Data, *, verify: bool = True) -> Source:
    """The data set of a section. With `verify`, what would fail later (missing files, double ids) fails here."""
    check(section, where="data")
    source: Source = _module(section.source).open_source(section)
    if not source.frames:
        raise DataError(f"{section.root or section.source}: the data set has no frames")
    if verify:
        _verify(source, section)
    return source


def recognise(root: Path | str) -> str:
    """The name of the form a path looks like; at an address of an object store only shards are read."""
    if storage.is_remote(root):
        return "shards"
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root} {'is a link that leads nowhere' if root.is_symlink() else 'does not exist'}")
    for name in names():
        if _module(name).fits(root):
            return name
    raise DataError(f"{root}: looks like none of {', '.join(names())}; name the form with --source")


def _module(name: str) -> ModuleType:
    return import_module(f"depthray.data.sources.{name}")


def _verify(source: Source, section: Data) -> None:
    double = [name for name, count in Counter(frame.id for frame in source.frames).items() if count > 1]
    if double:
        raise DataError(f"{section.root}: {len(double)} frame ids are used twice, first '{double[0]}'; ids must differ")
    for word, keys in (("inputs", section.inputs), ("targets", section.targets)):
        made = set() if section.sparse.pattern == "stored" else set(MADE)
        missing = sorted(set(keys) - source.keys - made)
        if missing:
            raise DataError(f"{section.root}: data.{word} wants '{missing[0]}', which this data set lacks")
    _ = source.fingerprint  # touches every file, so that a missing one is found before training, not during it
