"""Which photographs and videos of the command line are predicted, and where the outputs of each go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from depthray.cli.predicting.depth_files import OUTPUTS
from depthray.errors import DataError, UsageError, count_of
from depthray.imaging.suffixes import PHOTOS, VIDEOS

READ = "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, HEIC or video"
CONVERT = "convert others first, e.g. to PNG"
_SHOWN = 5  # names of files that are left out
SUFFIXES = (*PHOTOS, *VIDEOS)


class Target(NamedTuple):
    """A photograph or video, and the path of its outputs below the output folder, without a suffix."""

    source: Path
    output: Path


class Targets(NamedTuple):
    """What is predicted, and a text for each folder with files that are not."""

    found: list[Target]
    skipped: list[str]


def find_targets(paths: Sequence[Path], *, recursive: bool) -> Targets:
    """The images and videos that the paths mean; no two have the same outputs.

    Raises DataError where there are none, UsageError where two would have the same outputs.
    """
    outputs: dict[Path, Path] = {}
    skipped: list[str] = []
    for path in paths:
        files = dict(_files_of(path, recursive=recursive))
        others = [file for file in files if path.is_dir() and file.suffix.lower() not in SUFFIXES]
        outputs |= {file: output for file, output in files.items() if file not in others}
        if others:
            names = ", ".join(file.name for file in others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
            skipped.append(f"{count_of(len(others), 'file')} of {path}, not {READ}: {names}")
    if not outputs:
        hint = "; --recursive looks into the folders in it" if not recursive and _has_folders(paths) else ""
        left = "".join(f"; skipped: {text}; {CONVERT}" for text in skipped)
        raise DataError(f"no {READ} in {', '.join(map(str, paths))}{hint}{left}")
    return Targets(list(_distinct(outputs)), skipped)


def refuse_missing(targets: Targets) -> None:
    """Raise DataError where none of the images exists, before the network is loaded for none of them."""
    sources = [target.source for target in targets.found]
    if not any(os.path.lexists(source) or ":" in source.name for source in sources):  # camera:0 is no file
        others = f" (nor any of {len(sources) - 1} others)" if len(sources) > 1 else ""
        raise DataError(f"{sources[0]}: no such file{others}")


def _distinct(outputs: dict[Path, Path]) -> Iterator[Target]:
    twice = [str(output) for output, count in Counter(outputs.values()).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is in two of the folders; give their common folder with --recursive instead")
    stems = Counter(output.with_suffix("") for output in outputs.values())
    for source, output in outputs.items():  # a.jpg and a.png keep their suffixes, which else would share outputs
        yield Target(source, output if stems[output.with_suffix("")] > 1 else output.with_suffix(""))


def _files_of(path: Path, *, recursive: bool) -> Iterable[tuple[Path, Path]]:
    """The files of a path, each with its path relative to it; outputs of an earlier call are no inputs."""
    if not path.is_dir():
        return [(path, Path(path.name.replace(":", "-")))]  # camera:0
    inside = sorted(path.rglob("*") if recursive else path.iterdir())
    return [
        (file, file.relative_to(path))
        for file in inside
        if file.is_file() and not file.name.startswith(".") and not file.name.endswith(OUTPUTS)
    ]


def _has_folders(paths: Sequence[Path]) -> bool:
    return any(inside.is_dir() for path in paths if path.is_dir() for inside in path.iterdir())
