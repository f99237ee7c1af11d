"""How stored numbers become metres. The encoding of a data set is declared, never guessed from its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:  # not at run time: it imports torch, which reading and drawing depth do not need
    from depthray.batch import Metres

Stored = NDArray[Any]

FLOATS = ("float16", "float32", "float64")

# The cameras of this library see scenes between 10 cm and the end of a street; beyond that a unit was mistaken.
PLAUSIBLE_MEDIAN = (0.1, 100.0)  # metres, of the depth of a frame


class Encoding(NamedTuple):
    """One way of storing depth."""

    about: str
    dtypes: tuple[str, ...]
    to_metres: Callable[[Stored], Metres]


def _per_metre(steps: float) -> Callable[[Stored], Metres]:
    """`steps` stored units make one metre: (H,W) uint -> (H,W) float32 metres."""
    # Division, not multiplication by the inverse: it is correctly rounded, so equal files give equal floats everywhere.
    return lambda stored: np.divide(stored, np.float32(steps), dtype=np.float32)


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
    # NumPy files of some sets keep a channel axis.
    if stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    if stored.ndim != 2 or stored.size == 0:
        raise DataError(f"{where}: depth has shape {stored.shape}, but one channel (height, width) is needed")
    if stored.dtype.name not in ENCODINGS[encoding].dtypes:
        raise DataError(f"{where}: {_wrong_dtype(stored.dtype.name, encoding)}")
    return ENCODINGS[encoding].to_metres(stored)


def check(encoding: str, *, where: str) -> None:
    """Refuse an unknown encoding."""
    if encoding not in ENCODINGS:
        raise UsageError(f"{where}: no depth encoding data.encoding='{encoding}'{did_you_mean(encoding, ENCODINGS)}")


def describe_odd_values(stored: Stored) -> str:
    """(H,W) stored numbers -> counts of the values that `decode` silently makes unmeasured, as text; '' if none."""
    if stored.dtype.kind != "f":  # unsigned integers have no NaN and no sign
        return ""
    counts = {
        "NaN": np.isnan(stored).sum(),
        "infinite": np.isinf(stored).sum(),
        "negative": ((stored < 0) & np.isfinite(stored)).sum(),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _wrong_dtype(dtype: str, encoding: str) -> str:
    fitting = [name for name, known in ENCODINGS.items() if dtype in known.dtypes]
    hint = f"; for {dtype} there is {', '.join(fitting)}" if fitting else ""
    wanted = " or ".join(ENCODINGS[encoding].dtypes)
    return f"depth is stored as {dtype}, but encoding '{encoding}' is {wanted}: declare the right data.encoding{hint}"


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
