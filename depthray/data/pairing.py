"""Two folders of files -> the frames of an index.csv: which colour file belongs to which depth file, and their scenes.

Files are paired by their path without its suffix; else by that without words such as `rgb` and `depth`; else by the
times in their names. Scenes are folders, or names without their number, or recordings between which time passes, or
consecutive parts of one.
"""

from __future__ import annotations

import bisect
import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from depthray.errors import DataError

COLOUR_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
DEPTH_SUFFIXES = (".png", ".npy", ".pfm", ".tif", ".tiff", ".pgm")
COLOUR_WORDS = frozenset({"rgb", "color", "colour", "image", "images", "img", "imgs", "left"})
DEPTH_WORDS = frozenset({"depth", "depths", "depthmap", "depthmaps", "disparity", "range"})
WORD_ENDS = re.compile(r"[_\-. ]+")
TIME = re.compile(r"(?<!\d)[1-9]\d{8,18}(?:\.\d+)?(?!\d)")  # no leading zeros, which a frame's number has
DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})[_\-T]?(\d{6})(?!\d)")
CLOSE = 0.02  # seconds between a colour and a depth file of one moment; frames at 30 Hz are 0.033 apart
GAP = 10.0  # seconds without a frame after which another recording begins
PARTS = 10  # of a recording without scenes: one is held out
FEWEST = 4  # frames in a part
SceneChoice = Literal["auto", "folders", "names", "times", "parts"]
SCENE_CHOICES: tuple[SceneChoice, ...] = ("auto", "folders", "names", "times", "parts")
NUMBER = re.compile(r"[_\-. ]*\d+$")


class Pair(NamedTuple):
    """A colour file and its depth file."""

    rgb: Path
    depth: Path
    folder: str  # that both have in common, "" = none
    time: float | None  # seconds, where the name of the colour file has it


class Pairs(NamedTuple):
    """The pairs of two folders, and what has no partner."""

    pairs: list[Pair]
    way: str  # how they were found, for people
    alone: dict[str, list[Path]]  # "colour" and "depth": the files without the other


class Scenes(NamedTuple):
    """The scene of each pair, in their order."""

    names: list[str]
    way: str  # how they were found, for people


def find_pairs(rgb: Path, depth: Path) -> Pairs:
    """The pairs below two folders, which may be one and the same. Raises DataError where there are none."""
    if DEPTH_WORDS & _words(rgb.name) and COLOUR_WORDS & _words(depth.name):
        raise DataError(f"{rgb} is given as the folder of colour and {depth} as that of depth; swap them")
    colours, depths = _colour_and_depth_files(rgb, depth)
    for files, folder, kind in ((colours, rgb, "colour images"), (depths, depth, "depth files")):
        if not files:
            raise DataError(f"{folder}: no {kind} in it or below; give the folder of the colour images first")
    attempts: list[tuple[str, Callable[[Path, Path], str]]] = [
        ("by name", lambda path, root: path.relative_to(root).with_suffix("").as_posix()),
        ("by name without words such as rgb and depth", _key_without_words),
    ]
    found: list[tuple[str, dict[Path, Path]]] = []
    for way, key in attempts:
        found.append((way, _partners(_by_key(colours, rgb, key), _by_key(depths, depth, key))))
        if 2 * len(found[-1][1]) >= min(len(colours), len(depths)):  # a few equal times are no equal names
            break
    else:
        way = f"by the nearest time in their names, at most {CLOSE:g} s apart"
        found.append((way, _partners_in_time(colours, depths)))
    way, partners = max(found, key=lambda each: len(each[1]))
    if partners:
        return _pairs(partners, colours, depths, root=rgb, way=way)
    raise DataError(
        f"no file of {rgb} belongs to one of {depth}, e.g. '{colours[0].name}' and '{depths[0].name}'; give colour "
        "and depth of a frame the same name, whatever their suffixes"
    )


def find_scenes(pairs: Sequence[Pair], choice: SceneChoice = "auto", *, gap: float = GAP) -> Scenes:
    """The scenes of pairs in their order. Raises DataError where names or folders have none of the kind chosen."""
    folders = {pair.folder for pair in pairs}
    if choice == "folders" or (choice == "auto" and len(folders) > 1):
        return Scenes([pair.folder or "scene" for pair in pairs], "one for each folder")
    prefixes = [_name_without_number(pair.rgb) for pair in pairs]
    # Names of which each is another have no number that counts the frames of a scene.
    if choice == "names" or (choice == "auto" and all(prefixes) and 1 < len(set(prefixes)) <= len(pairs) / 2):
        return Scenes([prefix or "scene" for prefix in prefixes], "one for each name without its number")
    if choice in ("auto", "times") and all(pair.time is not None for pair in pairs):
        names = _recordings(pairs, gap=gap)
        if choice == "times" or len(set(names)) > 1:
            return Scenes(names, f"a new one where no frame comes for {gap:g} s")
    if choice == "times":
        raise DataError(f"'{pairs[0].rgb.name}' has no time in its name; choose --scenes folders, names or parts")
    asked = "consecutive parts of the frames in their order, as --scenes parts says"
    way = asked if choice == "parts" else "consecutive parts of one recording, as its names show no others"
    return Scenes(_parts(len(pairs)), way)


def index_text(pairs: Sequence[Pair], scenes: Sequence[str], *, below: Path, more: Mapping[str, str]) -> str:
    """The text of an index.csv in the folder `below`; `more` are columns with one value for all frames."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rgb", "depth", "scene", *more])
    for pair, scene in zip(pairs, scenes, strict=True):
        files = (Path(os.path.relpath(path, below)).as_posix() for path in (pair.rgb, pair.depth))
        writer.writerow([*files, scene, *more.values()])
    return text.getvalue()


def guess_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of colour and depth in a data set without an index, by their names; None where there are no two."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return None
    colour = [path for path in folders if COLOUR_WORDS & _words(path.name)]
    depth = [path for path in folders if DEPTH_WORDS & _words(path.name)]
    return (colour[0], depth[0]) if colour and depth else None


def _colour_and_depth_files(rgb: Path, depth: Path) -> tuple[list[Path], list[Path]]:
    if not _is_same(rgb, depth):
        return _files(rgb, COLOUR_SUFFIXES), _files(depth, DEPTH_SUFFIXES)
    # One folder for both: what has a word for depth in its path is depth.
    depths = [path for path in _files(rgb, DEPTH_SUFFIXES) if _is_depth(path, rgb)]
    return [path for path in _files(rgb, COLOUR_SUFFIXES) if not _is_depth(path, rgb)], depths


def _is_same(rgb: Path, depth: Path) -> bool:
    try:
        return os.path.samefile(rgb, depth)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None


def _files(root: Path, suffixes: Iterable[str]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the folder of the colour images, then that of the depth files")
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def _words(name: str) -> set[str]:
    return set(WORD_ENDS.split(name.lower()))


def _is_depth(path: Path, root: Path) -> bool:
    return any(DEPTH_WORDS & _words(part) for part in path.relative_to(root).with_suffix("").parts)


def _key_without_words(path: Path, root: Path) -> str:
    """The path of a file without suffix, and without words for colour and depth: `a/rgb/7_rgb` -> `a/7`"""
    parts = [_without_words(part) for part in path.relative_to(root).with_suffix("").parts]
    return "/".join(part for part in parts if part)


def _without_words(name: str) -> str:
    return "_".join(word for word in WORD_ENDS.split(name) if word.lower() not in COLOUR_WORDS | DEPTH_WORDS)


def _by_key(files: Iterable[Path], root: Path, key: Callable[[Path, Path], str]) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in files:
        found[key(path, root)].append(path)
    return found


def _partners(colours: dict[str, list[Path]], depths: dict[str, list[Path]]) -> dict[Path, Path]:
    """Colour file -> depth file, of the keys that both have. Raises DataError for a key of several files."""
    common = colours.keys() & depths.keys()
    for key in sorted(common):
        for files in (colours[key], depths[key]):
            if len(files) > 1:
                raise DataError(f"{files[0]} and {files[1]} have one name; keep one of them in the folder")
    return {colours[key][0]: depths[key][0] for key in sorted(common)}


def _partners_in_time(colours: Sequence[Path], depths: Sequence[Path]) -> dict[Path, Path]:
    """Colour file -> the depth file nearest in time, each used once at most."""
    times = sorted((time, path) for path in depths if (time := time_in_name(path)) is not None)
    nearest: dict[Path, tuple[float, Path]] = {}  # depth file -> distance, colour file
    for path in colours:
        time = time_in_name(path)
        if time is None or not times:
            continue
        place = bisect.bisect(times, (time, path))
        distance, depth = min((abs(other - time), found) for other, found in times[max(0, place - 1) : place + 1])
        if distance <= CLOSE and (depth not in nearest or distance < nearest[depth][0]):
            nearest[depth] = (distance, path)
    return {colour: depth for depth, (_, colour) in sorted(nearest.items(), key=lambda item: item[1][1])}


def time_in_name(path: Path) -> float | None:
    """The seconds in a file's name; None without.

    `1305031102.175304`, an integer of s, ms, us or ns since 1970, or a date such as `20260131_235959`.
    """
    if date := DATE.search(path.stem):
        try:
            return datetime.strptime("".join(date.groups()), "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError:  # digits that are no date
            return None
    found = TIME.search(path.stem)
    if found is None:
        return None
    # Seconds since 1970 have 9 or 10 digits, and three more for each smaller unit.
    digits = len(found.group().partition(".")[0])
    return float(found.group()) / 1000.0 ** ((digits - 9) // 3)


def _pairs(
    partners: Mapping[Path, Path], colours: Sequence[Path], depths: Sequence[Path], *, root: Path, way: str
) -> Pairs:
    pairs = [Pair(rgb, depth, _common_folder(rgb, root), time_in_name(rgb)) for rgb, depth in partners.items()]
    used = {*partners, *partners.values()}
    alone = {
        "colour": [path for path in colours if path not in used],
        "depth": [path for path in depths if path not in used],
    }
    return Pairs(sorted(pairs, key=lambda pair: pair.rgb), way, {kind: files for kind, files in alone.items() if files})


def _common_folder(path: Path, root: Path) -> str:
    parts = [_without_words(part) for part in path.relative_to(root).parent.parts]
    return "/".join(part for part in parts if part)


def _name_without_number(path: Path) -> str:
    """`kitchen_rgb_000123.png` -> `kitchen`, as of a time in place of the number; "" where no letter is left."""
    timeless = DATE.sub("", TIME.sub("", path.stem))
    prefix = _without_words(timeless if timeless != path.stem else NUMBER.sub("", path.stem)).strip("_")
    return prefix if re.search(r"[^\W\d_]", prefix) else ""


def _recordings(pairs: Sequence[Pair], *, gap: float) -> list[str]:
    """The name of the recording of each pair: a new one begins where no frame comes for `gap` seconds."""
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].time or 0.0)
    names = [""] * len(pairs)
    number, before = 0, pairs[order[0]].time or 0.0
    for index in order:
        time = pairs[index].time or 0.0
        number, before = number + (time - before > gap), time
        names[index] = f"recording-{number:03d}"
    return names


def _parts(count: int) -> list[str]:
    """Names of equal consecutive parts of `count` frames."""
    parts = max(1, min(PARTS, count // FEWEST)) if count >= 2 * FEWEST else min(2, count)
    return [f"part-{index * parts // count:02d}" for index in range(count)]
