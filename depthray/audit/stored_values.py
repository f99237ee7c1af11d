"""How depth lies in the files of a data set, and what each known encoding would make of it: shown, never chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from depthray.data.encodings import ENCODINGS, decode
from depthray.data.source import EncodedSource, Source
from depthray.errors import DataError

FRAMES = 16  # at most are looked at

Counted = tuple[NDArray[Any], NDArray[np.int64]]  # stored numbers in their order, and how many pixels hold each


class StoredDepth(NamedTuple):
    """How the depth of some frames of one dtype is stored. None stands for what there is nothing to say of."""

    dtype: str
    declared: str  # encoding
    frames: int
    smallest: float | None  # stored number beside 0
    largest: float | None
    distinct: int  # numbers beside 0
    step: float | None  # smallest distance of two of them
    zeros: float  # share of pixels
    medians: dict[str, float | None]  # metres over the measured pixels, by encoding


def inspect_stored_depth(source: Source) -> list[StoredDepth]:
    """How the depth of a data set looks, of each dtype and declared encoding by itself; frames are samples of it."""
    if not isinstance(source, EncodedSource):
        return []
    groups: dict[tuple[str, str], list[int]] = {}
    counted: dict[tuple[str, str], list[Counted]] = {}
    for index in _spread(source, len(source.frames)):
        stored = _numbers(source, index)
        if stored is not None:
            key = (stored.dtype.name, source.encoding(index))
            groups.setdefault(key, []).append(index)
            counted.setdefault(key, []).append(np.unique(stored, return_counts=True))
    return [_looks(source, key, groups[key], _together(counted[key])) for key in counted]


def stored_depth_table(found: Sequence[StoredDepth]) -> Table:
    """The looks of stored depth, a line for each encoding that could be meant."""
    result = Table(
        *("stored as", "frames", "range", "distinct", "step", "zeros", "encoding", "median depth", ""),
        title="stored depth",
        caption="nothing is chosen by these: data.encoding, or the form of the data set, declares the encoding",
    )
    for looks in found:
        for number, (name, median) in enumerate(looks.medians.items()):
            head = ("",) * 6 if number else _head(looks)
            mark = "declared" if name == looks.declared else ""
            last = number == len(looks.medians) - 1
            result.add_row(*head, name, _words(median, name, looks.dtype), mark, end_section=last)
    return result


def _spread(source: EncodedSource, count: int) -> Iterator[int]:
    """Frames evenly spread, of each declared encoding as many."""
    groups: dict[str, list[int]] = {}
    for index in range(count):
        groups.setdefault(source.encoding(index), []).append(index)
    for group in groups.values():
        taken = min(max(FRAMES // len(groups), 1), len(group))
        yield from (group[place * len(group) // taken] for place in range(taken))


def _numbers(source: EncodedSource, index: int) -> NDArray[Any] | None:
    """Frame -> its depth as stored; None where there is none to look at, which `check` reports for itself."""
    try:
        stored = source.stored_depth(index)
    except DataError:
        return None
    channels = stored.shape[2:]
    return (
        stored if stored.size and stored.ndim >= 2 and channels in ((), (1,)) and stored.dtype.kind in "uif" else None
    )


def _together(counted: Sequence[Counted]) -> Counted:
    """The counts of several frames -> those of all of them."""
    values, places = np.unique(np.concatenate([values for values, _ in counted]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([counts for _, counts in counted]))
    return values, counts


def _looks(source: Source, key: tuple[str, str], indices: list[int], counted: Counted) -> StoredDepth:
    (dtype, declared), (values, counts) = key, counted
    known = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    medians = {name: _median(counted, name) for name, encoding in ENCODINGS.items() if dtype in encoding.dtypes}
    if declared not in medians:
        medians[declared] = None if declared in ENCODINGS else _as_read(source, indices)
    return StoredDepth(
        dtype=dtype,
        declared=declared,
        frames=len(indices),
        smallest=float(known[0]) if known.size else None,
        largest=float(known[-1]) if known.size else None,
        distinct=len(known),
        step=float(np.diff(known).min()) if len(known) > 1 else None,
        zeros=float(counts[values == 0].sum() / counts.sum()),
        medians=medians,
    )


def _median(counted: Counted, encoding: str) -> float | None:
    """Stored numbers with their counts -> median metres of the measured pixels."""
    values, counts = counted
    metres = decode(values[None], encoding, where=encoding)[0]
    order = np.argsort(metres)
    order = order[metres[order] > 0]
    if not order.size:
        return None
    below = np.cumsum(counts[order])
    return float(metres[order[np.searchsorted(below, below[-1] / 2)]])


def _as_read(source: Source, indices: Sequence[int]) -> float | None:
    """Frames of a form with a unit of its own -> median metres of what reading them gives."""
    measured = [np.empty(0, np.float32)]
    for index in indices:
        with suppress(DataError):  # `check` reports it
            depth = source.read(index)["depth"]
            measured.append(depth[depth > 0])
    together = np.concatenate(measured)
    return float(np.median(together)) if together.size else None


def _head(looks: StoredDepth) -> tuple[str, ...]:
    spread = "-" if looks.smallest is None else f"{looks.smallest:.6g} to {looks.largest:.6g}"
    step = "-" if looks.step is None else f"{looks.step:.3g}"
    return looks.dtype, str(looks.frames), spread, str(looks.distinct), step, f"{looks.zeros:.1%}"


def _words(median: float | None, encoding: str, dtype: str) -> str:
    if median is not None:
        return f"{median:.4g} m"
    fits = encoding not in ENCODINGS or dtype in ENCODINGS[encoding].dtypes
    return "nothing measured" if fits else f"does not fit {dtype}"
