"""How stored numbers become metres. The encoding of a data set is declared, never guessed from its values.

An encoding is a name of `ENCODINGS`, or states a unit of its own with the dtype of the file: `uint16/5000` (5000 steps
a metre), `uint16*0.001` (millimetres), `uint16*50/65535` (50 m is 65535), `float32/100` (centimetres). Disparity is
`99745/uint16`: focal length in pixels times baseline in metres times steps a pixel, divided by the stored number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:  # not at run time: it imports torch, which reading and drawing depth do not need
    from depthray.batch import Metres, Sample

Stored = NDArray[Any]

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("uint8", "uint16", "uint32", "int16", "int32")
_DTYPE, _NUMBER = rf"(?P<dtype>{'|'.join((*INTEGERS, *FLOATS))})", r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
UNIT = re.compile(rf"{_DTYPE}(?=[*/])(?:\*(?P<times>{_NUMBER}))?(?:/(?P<by>{_NUMBER}))?")
INVERSE = re.compile(rf"(?P<times>{_NUMBER})/{_DTYPE}")
COMMON_STEPS = (100, 4000, 10_000)  # steps a metre of integers that data sets have without a name of their own here

# The cameras of this library see scenes between 10 cm and the end of a street; beyond that a unit was mistaken.
PLAUSIBLE_MEDIAN = (0.1, 100.0)  # metres, of the depth of a frame


class Encoding(NamedTuple):
    """One way of storing depth."""

    about: str
    dtypes: tuple[str, ...]
    to_metres: Callable[[Stored], Metres]
    farthest: float = np.inf  # metres that the largest stored number means, where there is one


def _per_metre(steps: float) -> Callable[[Stored], Metres]:
    """`steps` stored units make one metre: (H,W) uint -> (H,W) float32 metres."""
    # Division, not multiplication by the inverse: it is correctly rounded, so equal files give equal floats everywhere.
    by = np.float32(steps)

    def to_metres(stored: Stored) -> Metres:
        metres = stored.astype(np.float32)  # apart from dividing: both in one would go by small blocks
        return np.divide(metres, by, out=metres)

    return to_metres


def _from_swapped_disparity(stored: Stored) -> Metres:
    """(H,W) uint16 byte-swapped 11-bit Kinect disparity -> (H,W) float32 metres, at most 10; 0 for 1092 and above."""
    # The fit of the data set's own toolbox; it has its pole at 1092.5, beyond which a disparity means nothing.
    raw = stored.byteswap().astype(np.float32)
    metres = np.zeros(raw.shape, np.float32)
    np.divide(np.float32(351.3), np.float32(1092.5) - raw, out=metres, where=raw < 1092)
    return np.minimum(metres, np.float32(10.0))  # the toolbox's own limit


def _from_float(stored: Stored) -> Metres:
    """(H,W) float metres -> (H,W) float32 metres, 0 where NaN, infinite or negative."""
    # float64 beyond the range of float32 becomes infinite, which is unmeasured like NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        metres = stored.astype(np.float32)
        return np.where((metres > 0) & (metres < np.inf), metres, np.float32(0))


def _scale(stored: Stored, times: float, by: float) -> Metres:
    """(H,W) stored numbers -> (H,W) float32 metres: times / by of them, 0 where NaN, infinite or negative."""
    with np.errstate(invalid="ignore"):  # where a NaN signals, as some of 16 bits do on CPUs with AVX-512
        # float64 until the end, so that there is one rounding: uint16/1000 and uint16_mm give equal floats.
        return _from_float(stored.astype(np.float64) * times / by)


def _invert(stored: Stored, most: float) -> Metres:
    """(H,W) stored inverse depth -> (H,W) float32 metres, 0 where it is 0, negative, NaN or infinite."""
    numbers = stored.astype(np.float64)
    measured = (numbers > 0) & (numbers < np.inf)
    return _from_float(np.divide(most, numbers, out=np.zeros(numbers.shape), where=measured))


ENCODINGS: dict[str, Encoding] = {
    "uint8_10m": Encoding("8 bits over 10 m (NYU on Kaggle, training part)", ("uint8",), _per_metre(25.5)),
    "uint16_mm": Encoding("millimetres (7-Scenes; depthray's own)", ("uint16",), _per_metre(1000)),
    "uint16_256": Encoding("1/256 m (KITTI)", ("uint16",), _per_metre(256)),
    "uint16_5000": Encoding("1/5000 m (TUM RGB-D)", ("uint16",), _per_metre(5000)),
    "kinect_disparity_be": Encoding("byte-swapped 11-bit disparity (raw NYU)", ("uint16",), _from_swapped_disparity),
    "float_m": Encoding("metres as floating point (.npy)", FLOATS, _from_float),
}


def decode(stored: Stored, encoding: str, *, where: str) -> Metres:
    """(H,W) or (H,W,1) stored numbers -> (H,W) float32 metres, 0 where unmeasured; `where` names the file in errors."""
    check(encoding, where=where)
    known = find(encoding)
    assert known is not None, encoding  # or `check` would have refused it
    # NumPy files of some sets keep a channel axis.
    if stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    if stored.ndim != 2 or stored.size == 0:
        raise DataError(f"{where}: depth has shape {stored.shape}, but one channel (height, width) is needed")
    if _name(stored.dtype) not in known.dtypes:
        raise DataError(f"{where}: {_wrong_dtype(stored.dtype.name, encoding, known)}")
    return known.to_metres(stored)


@lru_cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # which NumPy makes anew each time, in longer than the rest of `decode` takes


def check(encoding: str, *, where: str) -> None:
    """Refuse an unknown encoding."""
    if find(encoding) is None:
        raise UsageError(
            f"{where}: no depth encoding data.encoding='{encoding}'{did_you_mean(encoding, ENCODINGS)}; any other unit "
            "is written as uint16/5000 (5000 steps a metre) or uint16*0.001 (metres a step)"
        )


@lru_cache
def find(encoding: str) -> Encoding | None:
    """The encoding of a name of `ENCODINGS` or of a unit; None where it is neither."""
    if encoding in ENCODINGS:
        return ENCODINGS[encoding]
    if match := INVERSE.fullmatch(encoding):
        most = float(match["times"])
        return Encoding("inverse depth", (match["dtype"],), lambda stored: _invert(stored, most)) if most else None
    match = UNIT.fullmatch(encoding)
    times, by = (float(match[key] or 1) for key in ("times", "by")) if match else (0.0, 0.0)
    if match is None or not (0 < times < np.inf and 0 < by < np.inf):
        return None
    dtype = match["dtype"]
    farthest = np.inf if dtype in FLOATS else np.iinfo(dtype).max * times / by
    about = f"{dtype}, {by / times:g} steps a metre"
    return Encoding(about, (dtype,), lambda stored: _scale(stored, times, by), farthest)


def fitting(dtype: str) -> Iterator[tuple[str, Encoding]]:
    """The encodings with a name that a dtype may have, and units that are common for it."""
    yield from ((name, known) for name, known in ENCODINGS.items() if dtype in known.dtypes)
    steps = COMMON_STEPS if dtype in ("uint16", "uint32", "int32") else (1000,) if dtype in FLOATS else ()
    for name in (f"{dtype}/{number}" for number in steps):
        known = find(name)
        assert known is not None, name
        yield name, known


def describe_odd_values(stored: Stored) -> str:
    """(H,W) stored numbers -> the count of those that no depth is, yet `decode` makes unmeasured, as text; '' if none.

    NaN and infinity are not among them: they are how data sets of floats say that nothing was measured.
    """
    if stored.dtype.kind not in "fi":  # unsigned integers have no sign
        return ""
    count = int((stored < 0).sum())
    return f"{count} negative" if count else ""


def _wrong_dtype(dtype: str, encoding: str, known: Encoding) -> str:
    names = [name for name, other in ENCODINGS.items() if dtype in other.dtypes]
    names += [f"{dtype}/N, N steps a metre"] if dtype in (*INTEGERS, *FLOATS) else []
    hint = f"; for {dtype} there is {', '.join(names)}" if names else ""
    wanted = " or ".join(known.dtypes)
    return f"depth is stored as {dtype}, but encoding '{encoding}' is {wanted}: declare the right data.encoding{hint}"


def judged_depth(sample: Sample) -> Metres:
    """The measured depth (H,W) of a sample in metres; where nothing is measured that of a teacher, if it has it."""
    depth = sample["depth"]
    return sample["teacher"] if "teacher" in sample and not depth.any() else depth


def depth_faults(depth: Metres, *, max_depth: float) -> list[tuple[str, str]]:
    """(H,W) float32 metres -> kind and detail of each fault."""
    measured = depth[depth > 0]
    if not measured.size:
        return [("empty depth", "no pixel is measured")]
    if measured.min() == measured.max():
        return [("constant depth", f"every measured pixel is {measured[0]:g} m")]
    median = float(np.median(measured))
    if not PLAUSIBLE_MEDIAN[0] <= median <= PLAUSIBLE_MEDIAN[1]:
        cause = "metres read as millimetres" if median < 1 else "millimetres read as metres"
        return [("implausible unit", f"median depth is {median:.4g} m: {cause}? declare the right data.encoding")]
    # More than half of the frame would not be learned from.
    if median > max_depth:
        return [("beyond max_depth", f"median depth is {median:.4g} m, data.max_depth {max_depth:g} m: unit or limit?")]
    return []
