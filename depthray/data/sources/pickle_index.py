"""Two folders of images and a pickled dict of colour name -> depth name, as in seed 002.

A pickle may hold a program; this reader accepts a plain dict of strings and refuses anything else without running it.
Names are looked for in the folders train_rgb, test_rgb, rgb and train_depth, test_depth, depth near the index. The unit
of depth is declared by data.encoding (kinect_disparity_be for the files of raw NYU). The index has no scenes: frames
captured without a pause of 10 s, by the times in the names of raw NYU, are one, else each 100 in a row of the index.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from depthray.data.readers.files import data_root
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, keys_to_read
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

INDEXES = ("index.pkl", "index1.pkl")  # looked for in a folder; others are named by their path
COLOURS = ("train_rgb", "test_rgb", "rgb", ".")
DEPTHS = ("train_depth", "test_depth", "depth", ".")
KEYS = frozenset({"image", "depth"})
CAPTURED = re.compile(r"r-(\d+\.\d+)-\d+")  # seconds, in a name of raw NYU
PAUSE = 10.0  # seconds
BLOCK = 100  # frames


def open_source(section: Data) -> PickleIndex:
    """The index, or the folder of one, at `section.root`."""
    index = _index(data_root(section))
    names = read_names(index)
    pairs = zip(_locate(index, names, COLOURS), _locate(index, names.values(), DEPTHS), strict=True)
    rows = [
        FrameRow(Frame(str(Path(name).with_suffix("")), scene, "", ""), pair)
        for name, scene, pair in zip(names, _scenes(list(names)), pairs, strict=True)
    ]
    return PickleIndex(index.parent, rows, keys=KEYS & keys_to_read(section), encoding=section.encoding)


def fits(root: Path) -> bool:
    """Whether the path is a pickle, or a folder with an index that is one."""
    return root.suffix == ".pkl" or any((root / name).is_file() for name in INDEXES)


def read_names(path: Path) -> dict[str, str]:
    """A pickled dict of strings; anything else in a pickle is a DataError and is not run."""
    try:
        names = _OnlyText(io.BytesIO(path.read_bytes())).load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # damaged pickles raise nearly anything
        raise DataError(f"{path}: not a readable pickle ({' '.join(str(error).split())[:80]})") from None
    if type(names) is not dict or not all(type(name) is str for pair in names.items() for name in pair):
        raise DataError(f"{path}: holds no dict of colour name -> depth name, both strings")
    return names


class PickleIndex(FrameFiles):
    """A data set of pairs, whose unit the recipe declares. See `depthray.data.source.Source`."""

    fingerprint_tag = "Indexed"  # the class's name when fingerprints were first recorded
    declared = True


class _OnlyText(pickle.Unpickler):
    """Builds Python's own plain values; a pickle reaches any class or function only through these two methods."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"asks for '{module}.{name}', but an index is a plain dict of strings; nothing was run")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError("asks for an object outside of it, but an index is a plain dict of strings")


def _index(root: Path) -> Path:
    if root.is_file():
        return root
    for name in INDEXES:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no {' or '.join(INDEXES)} there; give the path of the index itself")


def _locate(index: Path, names: Iterable[str], folders: tuple[str, ...]) -> list[str]:
    """Names in the index -> paths relative to its folder; the folder that has the first name has them all."""
    listed = list(names)
    for folder in folders:
        if listed and (index.parent / folder / listed[0]).is_file():
            return [str(Path(folder, name)) for name in listed]
    if listed:
        raise DataError(f"{index}: '{listed[0]}' is in none of the folders {', '.join(folders)} next to it")
    return []


def _scenes(names: list[str]) -> list[str]:
    """The scene of each name: its folder, else its stretch of capture, else its block of the index."""
    parents = [str(Path(name).parent) for name in names]
    if all(parent != "." for parent in parents):
        return parents
    times = [CAPTURED.search(name) for name in names]
    if all(times):
        return _stretches([float(time[1]) for time in times if time])
    # Neighbours in a list are mostly neighbours in time, so blocks keep most of them on one side.
    return [f"block-{number // BLOCK:04d}" for number in range(len(names))]


def _stretches(times: list[float]) -> list[str]:
    """Seconds -> stretches between pauses, in order of time."""
    stretches, scene, before = [""] * len(times), -1, float("-inf")
    for index in sorted(range(len(times)), key=times.__getitem__):
        scene += times[index] - before > PAUSE  # a bool is 0 or 1
        before = times[index]
        stretches[index] = f"stretch-{scene:04d}"
    return stretches
