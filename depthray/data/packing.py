"""Conversion of a data set into shards, one range of frames at a time, so that any number of workers writes the same.

Range n holds frames n*size to (n+1)*size of the source. Its samples go to shard-0000n.h5, those of a second and third
shape to shard-0000n-1.h5 and so on. A range is finished when its shards hold all its frames; otherwise it is redone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.data import encodings, sources
from depthray.data.shards import format, index_files
from depthray.data.source import MADE_BY, EncodedSource, Frame, RecordedSource, Source, notes
from depthray.errors import DataError, count_of
from depthray.version import __version__

if TYPE_CHECKING:
    from depthray.config.sections import Data

FRAMES_PER_SHARD = 512  # 197 MB of 320x240 with depth
INPUTS = ("image", "background", "sparse", "semantics", "instances", "mask")  # all that shards may hold besides depth
NAME = re.compile(r"shard-(\d{5,})(?:-\d+)?\.h5")


class ConversionPlan(NamedTuple):
    """A conversion: the facts that all its ranges have in common."""

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


def select_all_inputs(section: Data) -> Data:
    """The section with all inputs that the data set has, so that all of its data is read."""
    # "stored", or a form with sparse depth of its own would leave it out: it is derived from depth otherwise.
    measured = section.sparse.model_copy(update={"pattern": "stored"})
    everything = section.model_copy(update={"inputs": INPUTS, "sparse": measured})
    # Unverified: it asks for everything, and the inputs that there are get verified when it is opened again.
    available = sources.open_source(everything, verify=False).keys
    return everything.model_copy(update={"inputs": tuple(key for key in INPUTS if key in available)})


def shard_encoding(section: Data, source: Source | None = None) -> str:
    """The encoding of depth in shards: the data set's own where shards may have it, else the one that holds it.

    Where a form has parts of different units, `source` says which one it has, as `STORED`.
    """
    unit = str(getattr(source, "STORED", _stored_unit(section, source)))
    if unit in format.STEPS_PER_METRE:
        return unit
    declared = encodings.find(unit)
    # Of floats the range is not known; millimetres hold rooms, in which they are at home.
    reaches_far = declared is not None and format.FARTHEST < declared.farthest < math.inf
    return format.FAR_ENCODING if reaches_far else format.ENCODING


def _stored_unit(section: Data, source: Source | None) -> str:
    """The unit that a form states, else that of the recipe."""
    if section.source in sources.names():
        return str(getattr(import_module(f"depthray.data.sources.{section.source}"), "STORED", section.encoding))
    return source.encoding(0) if isinstance(source, EncodedSource) else section.encoding  # of one's own


def source_encodings(source: Source) -> dict[str, str]:
    """How the data set itself stores depth, for the provenance of its shards; empty where depth is not stored."""
    if not isinstance(source, EncodedSource):
        return {}
    return {"encoding": ", ".join(sorted({source.encoding(index) for index in range(len(source.frames))}))}


def _made_by(source: Source) -> dict[str, Any]:
    """The network that made depth or labels of the data set, which stays known when it is packed anew."""
    provenance = source.provenance() if isinstance(source, RecordedSource) else {}
    return {key: provenance[key] for key in MADE_BY if key in provenance}


def plan_section(
    section: Data, out: Path, *, name: str, frames_per_shard: int = FRAMES_PER_SHARD, skip_bad: bool = False
) -> tuple[Source, ConversionPlan]:
    """The data set of a section with all its inputs, and the plan of its conversion. `name` is for the provenance."""
    section = select_all_inputs(section)
    source = sources.open_source(section, verify=not skip_bad)  # with skip_bad a missing file is a frame to skip
    provenance = {
        "name": name,
        "form": section.source,
        "depthray": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        **source_encodings(source),
        **_made_by(source),
    }
    conversion = plan(
        source,
        out,
        provenance=provenance,
        frames_per_shard=frames_per_shard,
        encoding=shard_encoding(section, source),
        skip_bad=skip_bad,
    )
    return source, conversion


def plan(
    source: Source,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    frames_per_shard: int = FRAMES_PER_SHARD,
    encoding: str = format.ENCODING,
    skip_bad: bool = False,
) -> ConversionPlan:
    """Prepare the folder; a DataError if it holds shards of other data, or of ranges of another size."""
    from depthray.data.shards.writer import prepare_folder  # h5py takes a while; only packing needs it

    facts = {**provenance, "fingerprint": fingerprint_of(source, skip_bad=skip_bad)}
    conversion = ConversionPlan(out, len(source.frames), frames_per_shard, encoding, facts, skip_bad, notes(source))
    prepare_folder(out)
    # Before any frame is written: shards of two data sets in one folder would be read as one set.
    for path in sorted(out.glob("*.h5")):
        _refuse_other(path, source.frames, conversion)
    return conversion


def convert_range(
    source: Source, conversion: ConversionPlan, number: int, *, advance: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Write the shards of a range unless they are there -> the fault of each skipped frame, by its id."""
    from depthray.data.shards.writer import RangeWriter  # h5py again

    indices = conversion.frames(number)
    skipped = _skipped_if_finished(conversion, number, {source.frames[index].id for index in indices})
    if skipped is not None:
        for _ in indices:
            advance()
        return skipped
    skipped = {}
    index_files.discard(conversion.out)
    with RangeWriter(
        conversion.out, number, conversion.provenance, len(indices), encoding=conversion.encoding
    ) as writers:
        for index in indices:
            try:
                writers.add(source.frames[index], _read_stored(source, index, conversion.encoding))
            except DataError as error:
                if not conversion.skip_bad:
                    raise
                skipped[source.frames[index].id] = str(error)
            advance()
        writers.finish(skipped)
    return skipped


def convert(
    source: Source, conversion: ConversionPlan, *, advance: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Write all shards in this process -> the fault of each skipped frame, by its id."""
    skipped: dict[str, str] = {}
    for number in conversion.ranges:
        skipped |= convert_range(source, conversion, number, advance=advance)
    return skipped


def list_shards(conversion: ConversionPlan) -> list[Path]:
    """The paths of the shards; a DataError if no frame could be read."""
    paths = sorted(conversion.out.glob("*.h5"))
    if not paths:
        raise DataError(f"{conversion.out}: no shards, for none of the {conversion.total} frames could be read")
    return paths


def fingerprint_of(source: Source, *, skip_bad: bool) -> str:
    """The source's own fingerprint; where files are missing and may be skipped, that of the list of frames."""
    try:
        return source.fingerprint
    except DataError:
        if not skip_bad:
            raise
        return sha256(json.dumps(source.frames).encode()).hexdigest()


def _read_stored(source: Source, index: int, encoding: str) -> format.Arrays:
    where = f"frame '{source.frames[index].id}'"
    try:
        return format.to_stored(source.read(index), where=where, encoding=encoding)
    except DataError as error:
        raise error if where in str(error) else DataError(f"{where}: {error}") from None


def _refuse_other(path: Path, frames: Sequence[Frame], conversion: ConversionPlan) -> None:
    shard = format.open_shard(path)
    if shard.provenance.get("fingerprint") != conversion.provenance["fingerprint"]:
        raise DataError(f"{path}: packed from other data, or from data that has changed since; choose another folder")
    match = NAME.fullmatch(path.name)
    indices = conversion.frames(int(match[1])) if match else range(0)
    # A subset, not all: a range may have shards of several sizes, and frames that were skipped.
    if shard.encoding != conversion.encoding or not _ids(shard) <= {frames[index].id for index in indices}:
        raise DataError(f"{path}: cut into other ranges; give --frames-per-shard as before or choose another folder")


def _skipped_if_finished(conversion: ConversionPlan, number: int, ids: set[str]) -> dict[str, str] | None:
    """The skipped frames of a range whose shards are complete; None, and no shards left, if they are not."""
    shards = {path: format.open_shard(path) for path in _range_paths(conversion.out, number)}
    skipped: dict[str, str] = {}
    for shard in shards.values():
        skipped |= {
            name: f"frame '{name}': left out by an earlier call" for name in shard.provenance.get("skipped", ())
        }
    packed = set().union(*map(_ids, shards.values()))
    # Frames that an earlier call skipped count as done only where this one may skip frames as well.
    if shards and packed | set(skipped) == ids and (conversion.skip_bad or not skipped):
        return skipped
    for path in shards:  # a rest of an interrupted range would be counted twice
        path.unlink()
    return None


def _range_paths(out: Path, number: int) -> Iterator[Path]:
    yield from sorted((*out.glob(f"shard-{number:05d}.h5"), *out.glob(f"shard-{number:05d}-*.h5")))


def _ids(shard: format.Shard) -> set[str]:
    return {frame.id for frame in shard.frames}


def summarise_skipped(skipped: Mapping[str, str]) -> list[str]:
    """Lines to print: the number of skipped frames, and the fault of each."""
    return (
        [f"skipped {count_of(len(skipped), 'bad frame')}:", *(f"  {fault}" for fault in skipped.values())]
        if skipped
        else []
    )


def pack(
    source: Source,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    frames_per_shard: int = FRAMES_PER_SHARD,
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write all frames as shards into `out`. Complete shards of an interrupted earlier call are kept."""
    conversion = plan(source, out, provenance=provenance, frames_per_shard=frames_per_shard)
    convert(source, conversion, advance=advance)
    return list_shards(conversion)
