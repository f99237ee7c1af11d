"""How depth is stored in the files of a data set, and the metres that each known encoding would give.

This is shown to the user and never chooses an encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from depthray.data import encodings
from depthray.data.source import EncodedSource, Source
from depthray.errors import DataError, count_of

FRAMES = 16  # that are read at most

Counted = tuple[NDArray[Any], NDArray[np.int64]]  # stored numbers in ascending order, and the number of pixels of each


class StoredDepth(NamedTuple):
    """How the depth of some frames of one dtype is stored. None where there are too few numbers to tell."""

    dtype: str
    declared: str  # encoding
    frames: int
    smallest: float | None  # stored number other than 0
    largest: float | None
    distinct: int  # numbers other than 0
    step: float | None  # smallest difference of two of them
    zeros: float  # share of pixels
    medians: dict[str, float | None]  # metres over the measured pixels, by encoding


def inspect_stored_depth(source: Source) -> list[StoredDepth]:
    """The stored depth of a sample of frames, separately for each dtype and declared encoding."""
    if not isinstance(source, EncodedSource):
        return []
    groups: dict[tuple[str, str], list[int]] = {}
    counted: dict[tuple[str, str], list[Counted]] = {}
    for index in _sample_frames(source, len(source.frames)):
        stored = _read_numbers(source, index)
        if stored is not None:
            key = (stored.dtype.name, source.encoding(index))
            groups.setdefault(key, []).append(index)
            counted.setdefault(key, []).append(np.unique(stored, return_counts=True))
    return [_describe(source, key, groups[key], _merge(counted[key])) for key in counted]


def stored_depth_lines(groups: Sequence[StoredDepth]) -> list[str | Table]:
    """Stored depth to print: for each group its numbers, and a table of what the encodings that fit it would give."""
    lines: list[str | Table] = []
    for group in groups:
        table = Table("encoding", "median depth", "", caption=_CAPTION, caption_justify="left")
        for name, median in group.medians.items():
            mark = "declared" if name == group.declared else ""
            table.add_row(name, _format_median(median, name, group.dtype), mark)
        lines += [_format_numbers(group), table]
    return lines


_CAPTION = "Depth is read as declared (--encoding, data.encoding); the others are to compare with."


def _sample_frames(source: EncodedSource, count: int) -> Iterator[int]:
    """Frames evenly spread over the data set, equally many of each declared encoding."""
    groups: dict[str, list[int]] = {}
    for index in range(count):
        groups.setdefault(source.encoding(index), []).append(index)
    for group in groups.values():
        size = min(max(FRAMES // len(groups), 1), len(group))
        yield from (group[number * len(group) // size] for number in range(size))


def _read_numbers(source: EncodedSource, index: int) -> NDArray[Any] | None:
    """Frame -> (H,W) or (H,W,1) depth as stored; None where it is unusable, which `check` reports by itself."""
    try:
        stored = source.stored_depth(index)
    except DataError:
        return None
    channels = stored.shape[2:]
    return (
        stored if stored.size and stored.ndim >= 2 and channels in ((), (1,)) and stored.dtype.kind in "uif" else None
    )


def _merge(counted: Sequence[Counted]) -> Counted:
    """The counts of several frames -> their sum"""
    values, positions = np.unique(np.concatenate([values for values, _ in counted]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, positions, np.concatenate([counts for _, counts in counted]))
    return values, counts


def _describe(source: Source, key: tuple[str, str], indices: list[int], counted: Counted) -> StoredDepth:
    (dtype, declared), (values, counts) = key, counted
    measured = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    medians = {name: _median(counted, name) for name, _ in encodings.fitting(dtype)}
    if declared not in medians:
        medians[declared] = _median_as_declared(source, indices, key, counted)
    return StoredDepth(
        dtype=dtype,
        declared=declared,
        frames=len(indices),
        smallest=float(measured[0]) if measured.size else None,
        largest=float(measured[-1]) if measured.size else None,
        distinct=len(measured),
        step=float(np.diff(measured).min()) if len(measured) > 1 else None,
        zeros=float(counts[values == 0].sum() / counts.sum()),
        medians=medians,
    )


def _median(counted: Counted, encoding: str) -> float | None:
    """Stored numbers with their counts -> median metres of the measured pixels"""
    values, counts = counted
    metres = encodings.decode(values[None], encoding, where=encoding)[0]
    order = np.argsort(metres)
    order = order[metres[order] > 0]
    if not order.size:
        return None
    # The weighted median of the distinct values: at most 65,536 of them, however many pixels there are.
    cumulative = np.cumsum(counts[order])
    return float(metres[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])


def _median_as_declared(source: Source, indices: list[int], key: tuple[str, str], counted: Counted) -> float | None:
    """Frames of a dtype and declared encoding -> median metres by that encoding; None where it does not fit."""
    (dtype, declared) = key
    known = encodings.find(declared)
    if known is None:
        return _median_as_read(source, indices)
    return _median(counted, declared) if dtype in known.dtypes else None


def _median_as_read(source: Source, indices: Sequence[int]) -> float | None:
    """Frames of a form with a unit of its own -> median metres of their samples"""
    measured = [np.empty(0, np.float32)]
    for index in indices:
        with suppress(DataError):  # `check` reports it
            depth = source.read(index)["depth"]
            measured.append(depth[depth > 0])
    depths = np.concatenate(measured)
    return float(np.median(depths)) if depths.size else None


def _format_numbers(group: StoredDepth) -> str:
    """What all encodings of a group have in common: its stored numbers."""
    facts = [f"stored as {group.dtype} in {count_of(group.frames, 'frame')} looked at"]
    if group.smallest is not None:
        facts.append(f"{group.smallest:.6g} to {group.largest:.6g}")
    facts.append(f"{count_of(group.distinct, 'distinct number')}")
    if group.step is not None:
        facts.append(f"smallest step {group.step:.3g}")
    facts.append(f"{group.zeros:.1%} zeros")
    return "depth: " + ", ".join(facts)


def _format_median(median: float | None, encoding: str, dtype: str) -> str:
    if median is not None:
        return f"{median:.4g} m"
    known = encodings.find(encoding)
    fits = known is None or dtype in known.dtypes
    return "nothing measured" if fits else f"does not fit {dtype}"
