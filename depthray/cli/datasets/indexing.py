"""`depthray data index`: an index.csv of two folders of colour and depth files, or the index of a folder of shards."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from depthray.data import pairing
from depthray.data.shards import index_files
from depthray.data.sources.folder import INDEX, PINHOLE
from depthray.errors import DataError, ResourceError, UsageError, count_of
from depthray.imaging.camera import read_camera
from depthray.storage.local import replace

NAMED = 3  # files without a partner that are named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data index`."""
    parser.add_argument(
        "rgb", type=Path, metavar="RGB_DIR|SHARDS", help="folder of the colour images, with all below it; or of shards"
    )
    depth = "folder of the depth files; may be the same; none after a folder of shards"
    parser.add_argument("depth", type=Path, nargs="?", metavar="DEPTH_DIR", help=depth)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the index (default: {INDEX} in the folder that has both)"
    )
    parser.add_argument(
        "--scenes",
        choices=pairing.SCENE_CHOICES,
        default="auto",
        help="frames of one scene are never on both sides of a split: a scene for each folder, for each name without "
        "its number, for each recording by the times in names, or for each of ten consecutive parts (default: the "
        "first of these that gives several)",
    )
    gap = f"times: seconds without a frame after which another scene begins (default: {pairing.GAP:g})"
    parser.add_argument("--gap", type=float, default=pairing.GAP, metavar="SECONDS", help=gap)
    parser.add_argument("--intrinsics", metavar="fx,fy,cx,cy", help="pinhole camera of all frames, in pixels")


def write_index(arguments: argparse.Namespace) -> list[str]:
    """Write the index. Returns the lines to print; raises DataError where the folders have no frames."""
    if arguments.depth is None:
        return _index_shards(arguments.rgb)
    if not arguments.gap > 0:
        raise UsageError(f"--gap {arguments.gap:g}: give seconds above 0")
    camera = read_camera(arguments.intrinsics) if arguments.intrinsics else ()
    found = pairing.find_pairs(arguments.rgb, arguments.depth)
    scenes = pairing.find_scenes(found.pairs, arguments.scenes, gap=arguments.gap)
    out = arguments.out or _common_folder(arguments.rgb, arguments.depth) / INDEX
    if out.exists():
        raise DataError(f"{out} exists; remove it, or give another --out FILE.csv")
    if out.suffix != ".csv":
        raise UsageError(f"--out {out}: an index is a file with a name that ends in .csv")
    more = dict(zip(PINHOLE, (f"{number:g}" for number in camera), strict=True)) if camera else {}
    text = pairing.index_text(found.pairs, scenes.names, below=out.parent, more=more)
    try:
        replace(out, text.encode())
    except OSError as error:
        raise ResourceError(f"{out}: cannot be written: {error.strerror}; choose another --out") from None
    return _lines(found, scenes, out)


def _index_shards(root: Path) -> list[str]:
    """Write the index of shards that were packed without one, or copied there."""
    if not any(root.glob("*.h5")):
        raise UsageError(f"{root}: no shards, which alone are indexed by themselves; give DEPTH_DIR too")
    frames = index_files.write(root)
    return [f"{count_of(frames, 'frame')} indexed", f"written: {root / index_files.FOLDER}"]


def _common_folder(rgb: Path, depth: Path) -> Path:
    common = Path(os.path.commonpath([os.path.abspath(rgb), os.path.abspath(depth)]))
    here = Path.cwd()
    return common.relative_to(here) if common.is_relative_to(here) else common


def _lines(found: pairing.Pairs, scenes: pairing.Scenes, out: Path) -> list[str]:
    frames, count = len(found.pairs), len(set(scenes.names))
    other = {"colour": "depth", "depth": "colour"}
    alone = [
        f"skipped: {count_of(len(files), f'{kind} file')} without {other[kind]}: {_some(files)}"
        for kind, files in found.alone.items()
    ]
    data = out.parent if out.name == INDEX else out
    lines = [
        f"{count_of(frames, 'frame')} paired {found.way}",
        f"{count_of(count, 'scene')}: {scenes.way}",
        *alone,
        f"written: {out}",
    ]
    if count == 1:
        lines.append("note: training holds complete scenes out and needs two; add another recording, or --scenes parts")
    return [*lines, f"next: depthray data check {data}"]


def _some(files: list[Path]) -> str:
    return ", ".join(path.name for path in files[:NAMED]) + (", ..." if len(files) > NAMED else "")
