"""A folder of composites in the layout of MODEST Museum, which the form `modest` reads.

A call that was interrupted goes on where it was: files appear complete or not at all, what is there is not written or
labelled again, and `file_map.txt`, by which the set is read, comes last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.compositing.composites import (
    Composite,
    CompositePlan,
    Pictures,
    Rgb,
    composites,
    fit_background,
    numbered,
)
from depthray.data.shards.format import to_millimetres
from depthray.data.sources.modest import BOXES, FOLDERS, LOSSLESS, MAP, SUFFIX
from depthray.errors import DataError, ResourceError, UsageError
from depthray.imaging import photos
from depthray.storage import local
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

SETTINGS, NAMES = "composite.json", "names.txt"
ADVICE = "free space or choose another folder"
AT_ONCE = 8  # composites that a teacher sees together

Label = Callable[[list[Rgb]], Sequence[NDArray[np.float32]]]  # images (H,W,3) -> depth (H,W) in metres


def write(
    plan: CompositePlan,
    pictures: Pictures,
    label: Label | None = None,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Write all composites -> how many there are. `label` predicts their depth, `advance` is told of those done.

    Raises UsageError for a folder that holds anything else, DataError for bad pictures, ResourceError for a full disk.
    """
    count = 0
    with translate_os_errors(plan.out, to=ResourceError, doing="be written", advice=ADVICE):
        _claim(plan, pictures)
        _write_backgrounds(plan, pictures)
        # Of unfinished names until all is there: a set of some 100,000 lines need not be in memory.
        unfinished = {name: plan.out / f"{local.UNFINISHED}{name}" for name in (BOXES, MAP)}
        with unfinished[MAP].open("w") as lines, unfinished[BOXES].open("w") as boxes:
            for group in _in_groups(composites(plan, pictures), AT_ONCE):
                _write_group(plan, group, label)
                for each in group:
                    lines.write("\t".join(_names(each.stem, with_depth=label is not None)) + "\n")
                    boxes.write("\t".join(map(str, (f"{each.stem}{SUFFIX}", *each.box))) + "\n")
                count += len(group)
                advance(len(group))
        for name, path in unfinished.items():
            os.replace(path, plan.out / name)
    return count


def _write_backgrounds(plan: CompositePlan, pictures: Pictures) -> None:
    for number, picture in enumerate(pictures.backgrounds):
        path = plan.out / FOLDERS["background"] / f"{numbered('bg', number, len(pictures.backgrounds))}{SUFFIX}"
        if not path.exists():
            _save(path, fit_background(photos.read(picture), plan.size), quality=plan.quality)


def _write_group(plan: CompositePlan, placed: Sequence[Composite], label: Label | None) -> None:
    """Write the files of composites that an interrupted call has not written; of each the one that is known last."""
    last = "mask" if label is None else "depth"
    missing = [each for each in placed if not _path(plan.out, each.stem, last).exists()]
    depths = label([each.image for each in missing]) if label and missing else [None] * len(missing)
    for each, depth in zip(missing, depths, strict=True):
        _save(_path(plan.out, each.stem, "image"), each.image, quality=plan.quality)
        _save(_path(plan.out, each.stem, "mask"), each.mask)
        if depth is not None:
            _save(_path(plan.out, each.stem, "depth"), to_millimetres(np.asarray(depth, np.float32)))


def _names(stem: str, *, with_depth: bool) -> list[str]:
    """A line of file_map.txt: background, composite, mask and, where there is any, depth."""
    names = [stem.split("_")[0], stem, f"{stem}_mask{LOSSLESS}", f"{stem}_depth_map{LOSSLESS}"]
    return names if with_depth else names[:3]


def _path(out: Path, stem: str, role: str) -> Path:
    name = dict(zip(FOLDERS, _names(stem, with_depth=True), strict=True))[role]
    return out / FOLDERS[role] / (name if name.endswith(LOSSLESS) else f"{name}{SUFFIX}")


def _save(path: Path, pixels: NDArray[Any], *, quality: int = 0) -> None:
    """Write a picture, of which others see all or nothing: JPEG of that quality, or PNG by its name."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == SUFFIX else []
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    local.replace(path, cv2.imencode(path.suffix, stored, options)[1].tobytes(), durable=False)


def _claim(plan: CompositePlan, pictures: Pictures) -> None:
    """Make the folder, or go on with one that was begun with this plan and these files."""
    path, settings = plan.out / SETTINGS, _settings(plan, pictures)
    if path.exists():
        _check_same(path, settings)
    elif plan.out.exists() and any(plan.out.iterdir()):
        raise UsageError(f"{plan.out}: holds other files; choose another folder")
    for name, folder in FOLDERS.items():
        if name != "depth" or plan.teacher:
            (plan.out / folder).mkdir(parents=True, exist_ok=True)
        for unfinished in (plan.out / folder).glob(f"{local.UNFINISHED}*"):
            unfinished.unlink()
    if not path.exists():
        local.replace(path, to_json(settings, indent=1).encode())
    local.replace(plan.out / NAMES, "".join(_table(plan, pictures)).encode())


def _settings(plan: CompositePlan, pictures: Pictures) -> dict[str, Any]:
    """What decides the composites: the plan, and names and sizes of the files."""
    folders: dict[str, tuple[Path | None, Sequence[Path | None]]] = {
        "foregrounds": (plan.foregrounds, pictures.foregrounds),
        "masks": (plan.masks, pictures.masks),
        "backgrounds": (plan.backgrounds, pictures.backgrounds),
    }
    files = {
        name: [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in paths if path and folder]
        for name, (folder, paths) in folders.items()
    }
    kept = {key: value for key, value in plan._asdict().items() if key not in ("out", *folders)}
    settings: dict[str, Any] = json.loads(json.dumps(kept | files))  # as they are read again: tuples are lists
    return settings


def _check_same(path: Path, settings: dict[str, Any]) -> None:
    """Raise UsageError for a folder that was begun with another plan, or with other files."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{path}: damaged; remove the folder, or choose another one") from None
    for key, value in settings.items():
        if before.get(key) != value:
            are_files = key in Pictures._fields
            what = f"other {key}" if are_files else f"{key} {before.get(key)}, and now it is {value}"
            raise UsageError(f"{path.parent}: was begun with {what}; choose another folder")


def _table(plan: CompositePlan, pictures: Pictures) -> Iterator[str]:
    """Which file each background and object is."""
    for prefix, folder, paths in (
        ("bg", plan.backgrounds, pictures.backgrounds),
        ("fg", plan.foregrounds, pictures.foregrounds),
    ):
        for number, path in enumerate(paths):
            yield f"{numbered(prefix, number, len(paths))}\t{path.relative_to(folder).as_posix()}\n"


def _in_groups(each: Iterator[Composite], size: int) -> Iterator[list[Composite]]:
    group: list[Composite] = []
    for one in each:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
