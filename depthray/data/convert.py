"""Any form of data set into shards, a range of frames at a time, so that any number of workers makes the same shards.

Range n holds frames n*size to (n+1)*size of the source. Its samples go to shard-0000n.h5, those of a second and third
shape to shard-0000n-1.h5 and so on. A range is finished when its shards hold all its frames; others are made again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.data.shards import format
from depthray.data.source import EncodedSource, Frame, Source, notes
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

FRAMES_PER_SHARD = 512
NAME = re.compile(r"shard-(\d{5,})(?:-\d+)?\.h5")


class ConversionPlan(NamedTuple):
    """What every range of a conversion has in common."""

    out: Path
    total: int  # frames of the source
    size: int  # frames of a range
    encoding: str  # of depth in the shards
    provenance: Mapping[str, Any]
    skip_bad: bool
    notes: tuple[str, ...] = ()  # of the source

    @property
    def ranges(self) -> list[int]:
        """The numbers of all ranges."""
        return list(range(-(-self.total // self.size)))

    def frames(self, number: int) -> range:
        """The indices of the frames of a range."""
        return range(number * self.size, min((number + 1) * self.size, self.total))


def shard_encoding(section: Data) -> str:
    """How shards keep the depth of a data set: in its own unit where that is one of theirs, else in millimetres."""
    module = import_module(f"depthray.data.sources.{section.source}")
    unit = str(getattr(module, "STORED", section.encoding))
    return unit if unit in format.STEPS_PER_METRE else format.ENCODING


def source_encodings(source: Source) -> dict[str, str]:
    """How the data set itself stores depth, for the provenance of its shards; nothing where none is stored."""
    if not isinstance(source, EncodedSource):
        return {}
    return {"encoding": ", ".join(sorted({source.encoding(index) for index in range(len(source.frames))}))}


def plan(
    source: Source,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    frames_per_shard: int = FRAMES_PER_SHARD,
    encoding: str = format.ENCODING,
    skip_bad: bool = False,
) -> ConversionPlan:
    """Prepare the folder; a DataError if it holds shards of anything else, or cut in another way."""
    from depthray.data.shards.writer import prepare_folder

    facts = {**provenance, "fingerprint": _fingerprint(source, skip_bad=skip_bad)}
    made = ConversionPlan(out, len(source.frames), frames_per_shard, encoding, facts, skip_bad, notes(source))
    prepare_folder(out)
    for path in sorted(out.glob("*.h5")):
        _refuse_other(path, source.frames, made)
    return made


def convert_range(
    source: Source, made: ConversionPlan, number: int, *, advance: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Make the shards of a range unless they are there; what was wrong with each frame that was skipped, by its id."""
    from depthray.data.shards.writer import RangeWriter  # only packing needs HDF5

    indices = made.frames(number)
    skipped = _finished(made, number, {source.frames[index].id for index in indices})
    if skipped is not None:
        for _ in indices:
            advance()
        return skipped
    skipped = {}
    with RangeWriter(made.out, number, made.provenance, len(indices), encoding=made.encoding) as writers:
        for index in indices:
            try:
                writers.add(source.frames[index], _read(source, index, made.encoding))
            except DataError as error:
                if not made.skip_bad:
                    raise
                skipped[source.frames[index].id] = str(error)
            advance()
        writers.finish(skipped)
    return skipped


def convert(source: Source, made: ConversionPlan, *, advance: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Make all shards in this process; what was wrong with each skipped frame, by its id."""
    skipped: dict[str, str] = {}
    for number in made.ranges:
        skipped |= convert_range(source, made, number, advance=advance)
    return skipped


def list_shards(made: ConversionPlan) -> list[Path]:
    """The shards there are now; a DataError if no frame could be read."""
    paths = sorted(made.out.glob("*.h5"))
    if not paths:
        raise DataError(f"{made.out}: no shards, for none of the {made.total} frames could be read")
    return paths


def _fingerprint(source: Source, *, skip_bad: bool) -> str:
    try:
        return source.fingerprint
    except DataError:  # a file is missing: its frame will be skipped
        if not skip_bad:
            raise
        return sha256(json.dumps(source.frames).encode()).hexdigest()


def _read(source: Source, index: int, encoding: str) -> format.Arrays:
    where = f"frame '{source.frames[index].id}'"
    try:
        return format.to_stored(source.read(index), where=where, encoding=encoding)
    except DataError as error:
        raise error if where in str(error) else DataError(f"{where}: {error}") from None


def _refuse_other(path: Path, frames: Sequence[Frame], made: ConversionPlan) -> None:
    shard = format.open_shard(path)
    if shard.provenance.get("fingerprint") != made.provenance["fingerprint"]:
        raise DataError(f"{path}: packed from other, or since changed, data; choose another folder")
    named = NAME.fullmatch(path.name)
    indices = made.frames(int(named[1])) if named else range(0)
    if shard.encoding != made.encoding or not _ids(shard) <= {frames[index].id for index in indices}:
        raise DataError(f"{path}: cut in another way; give --frames-per-shard as before or choose another folder")


def _finished(made: ConversionPlan, number: int, ids: set[str]) -> dict[str, str] | None:
    """The skipped frames of a range whose shards are complete; None, and no shards left, if they are not."""
    found = {path: format.open_shard(path) for path in _of_range(made.out, number)}
    skipped: dict[str, str] = {}
    for shard in found.values():
        skipped |= {
            name: f"frame '{name}': left out by an earlier call" for name in shard.provenance.get("skipped", ())
        }
    have = set().union(*map(_ids, found.values()))
    if found and have | set(skipped) == ids and (made.skip_bad or not skipped):
        return skipped
    for path in found:
        path.unlink()
    return None


def _of_range(out: Path, number: int) -> Iterator[Path]:
    yield from sorted((*out.glob(f"shard-{number:05d}.h5"), *out.glob(f"shard-{number:05d}-*.h5")))


def _ids(shard: format.Shard) -> set[str]:
    return {frame.id for frame in shard.frames}


def summarise_skipped(skipped: Mapping[str, str]) -> list[str]:
    """The skipped frames, for people: how many, and each with its fault."""
    return [f"skipped {len(skipped)} bad frames:", *(f"  {fault}" for fault in skipped.values())] if skipped else []


def pack(
    source: Source,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    frames_per_shard: int = 512,
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write all frames as shards into `out`. Whole shards of an interrupted earlier call are kept, not made again."""
    made = plan(source, out, provenance=provenance, frames_per_shard=frames_per_shard)
    convert(source, made, advance=advance)
    return list_shards(made)
