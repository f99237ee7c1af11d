"""The index of a data set by its size: packing, opening, planning an epoch, and memory of a process of its own.

    python benchmarks/index.py [--packed 1000,10000,100000] [--made 1000000,50000000] [--plot index.png]

Small frames are packed and indexed; the index of millions is made up, with empty files for shards, since opening and
planning read no shard. A process of its own opens each set as training does, splits it, and plans an epoch for one of 8
workers. Seconds are of its processor time, which other programs change less than those of the clock. Its own memory
(private pages in /proc/self/smaps_rollup) is what it adds to that after its imports; the starting process has mapped
the same index, as other workers of a node have, so that mapped pages count as shared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.columns.frame_columns import SPLITS
from depthray.data.columns.step_frames import StepFrames, StepLayout, shuffled
from depthray.data.shards import index_files
from depthray.data.source import Frame
from depthray.data.sources import open_source
from depthray.data.split import split

SIZE = (24, 32)  # pixels of a packed frame
SCENE = 500  # frames of a scene
PER_SHARD = 512
WORKERS, BATCH, STEPS = 8, 256, 200
AT_ONCE = 1 << 20  # frames made up in one go
DIGITS = 9  # of an id
MB = 2**20


class Figures(NamedTuple):
    """What was measured of a set."""

    frames: int
    kind: str  # packed, without its index, made up
    pack: float  # s; NaN where nothing was packed
    write: float  # s to write the index
    disk: float  # bytes a frame of the index
    open: float  # s
    split: float  # s
    plan: float  # s of the first STEPS steps of one worker
    private: float  # MB of the process's own, after all of that
    shared: float  # MB of the index that it has touched, shared by all processes of the machine


class SmallFrames:
    """Frames that take no time to make."""

    keys = frozenset({"image", "depth"})
    fingerprint = "0" * 64

    def __init__(self, count: int) -> None:
        self.frames = [Frame(f"{number:0{DIGITS}d}", f"scene-{number // SCENE}", "", "made") for number in range(count)]
        random = np.random.default_rng(0)
        self._image = random.integers(0, 256, (*SIZE, 3), np.uint8)
        self._depth = random.uniform(1, 9, SIZE).astype(np.float32)

    def read(self, index: int) -> Any:
        """The same arrays under each name."""
        frame = self.frames[index]
        return {"image": self._image, "depth": self._depth, "id": frame.id, "scene": frame.scene, "source": "made"}

    def faults(self, index: int) -> list[str]:
        """None."""
        return []


def main() -> int:
    """Measure each set and print the table; draw it with --plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", default="1000,10000,100000", help="numbers of frames that are packed")
    parser.add_argument("--made", default="1000000,50000000", help="numbers of frames of which an index is made up")
    parser.add_argument("--plot", type=Path, help="image to draw the figures into")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return 0
    rows: list[Figures] = []
    print("   frames kind       pack s index s B/frame  open s split s  plan s private MB shared MB")
    for made, counts in ((False, args.packed), (True, args.made)):
        for count in filter(None, counts.split(",")):
            for row in of_made(int(count)) if made else of_packed(int(count)):
                rows.append(row)
                print(
                    f"{row.frames:9d} {row.kind:10s} {row.pack:6.1f} {row.write:7.2f} {row.disk:7.1f} {row.open:7.3f} "
                    f"{row.split:7.3f} {row.plan:7.3f} {row.private:10.1f} {row.shared:9.1f}",
                    flush=True,
                )
    if args.plot:
        draw(rows, args.plot)
    return 0


def of_packed(count: int) -> list[Figures]:
    """A set that is packed: with its index, and without."""
    with tempfile.TemporaryDirectory(prefix="depthray-index-") as work:
        root, started = Path(work), time.process_time()
        packing.pack(SmallFrames(count), root, provenance={}, frames_per_shard=PER_SHARD)
        packed = time.process_time()
        index_files.write(root)
        indexed = time.process_time()
        first = figures(count, "packed", root, pack=packed - started, index=indexed - packed)
        index_files.discard(root)
        return [first, figures(count, "no index", root)]


def of_made(count: int) -> list[Figures]:
    """A set of which only the index is made up."""
    with tempfile.TemporaryDirectory(prefix="depthray-index-") as work:
        started = time.process_time()
        make_index(Path(work), count)
        return [figures(count, "made up", Path(work), index=time.process_time() - started)]


def figures(count: int, kind: str, root: Path, *, pack: float = float("nan"), index: float = float("nan")) -> Figures:
    """What a process of its own measures of a set, with what it took to make it."""
    folder = root / index_files.FOLDER
    disk = sum(path.stat().st_size for path in folder.glob("*")) / count if folder.exists() else float("nan")
    other = open_source(Data(source="shards", root=str(root)))  # as another worker has it
    split(other.frames, Data())
    command = [sys.executable, __file__, "--measure", str(root)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return Figures(count, kind, pack, index, disk, **json.loads(result.stdout))


def measure(root: Path) -> dict[str, float]:
    """Open, split and plan in this process."""
    before, times = memory(), [time.process_time()]
    source = open_source(Data(source="shards", root=str(root)))
    times.append(time.process_time())
    sides = split(source.frames, Data())
    times.append(time.process_time())
    layout = StepLayout(min(BATCH, len(sides.train)), 0, 1 if len(sides.train) < BATCH else WORKERS, 1)
    steps = range(len(sides.train) // layout.batch_size)
    frames = StepFrames(shuffled(sides.train, seed=0, epoch=0), layout, steps)
    for number in steps[:STEPS]:
        _ = frames[number]
    times.append(time.process_time())
    opened, divided, planned = np.diff(times).tolist()
    after = memory()
    private, shared = after[0] - before[0], after[1] - before[1]
    return {"open": opened, "split": divided, "plan": planned, "private": private, "shared": shared}


def memory() -> tuple[float, float]:
    """MB of this process's own pages, and of those that it shares."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    private, shared = (sizes[f"{kind}_Clean"] + sizes[f"{kind}_Dirty"] for kind in ("Private", "Shared"))
    return private / MB, shared / MB


def make_index(root: Path, count: int) -> None:
    """The index that `count` frames of RGB and depth would have, and empty files for their shards."""
    folder = root / index_files.FOLDER
    folder.mkdir()
    shards, scenes = -(-count // PER_SHARD), -(-count // SCENE)
    size = PER_SHARD * 4096
    names = [f"shard-{number:06d}.h5" for number in range(shards)]
    for name in names:
        with (root / name).open("wb") as file:
            os.truncate(file.fileno(), size)
    columns: dict[str, tuple[DTypeLike, int, Any]] = {
        "scene": ("<i4", count, lambda n: n // SCENE),
        "split": ("i1", count, lambda n: n * 0),
        "source": ("<i4", count, lambda n: n * 0),
        "id_text_end": ("<i8", count, lambda n: (n + 1) * DIGITS),
        "id_text": ("u1", count * DIGITS, lambda n: 48 + n // DIGITS // 10 ** (DIGITS - 1 - n % DIGITS) % 10),
        "offset_image": ("<u4", count, lambda n: n % PER_SHARD * 4096),
        "offset_depth": ("<u4", count, lambda n: n % PER_SHARD * 4096 + 2048),
        "shard_end": ("<i8", shards, lambda n: np.minimum((n + 1) * PER_SHARD, count)),
        "shard_bytes": ("<i8", shards, lambda n: n * 0 + size),
        "shard_kind": ("<i4", shards, lambda n: n * 0),
    }
    for name, (dtype, length, value) in columns.items():
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(dtype), (length,))
        for start in range(0, length, AT_ONCE):
            array[start : start + AT_ONCE] = value(np.arange(start, min(start + AT_ONCE, length)))
        del array
    np.save(folder / "shard_check.npy", np.zeros((shards, 32), np.uint8))
    for name, texts in (("shard_text", names), ("scene_text", [f"scene-{number}" for number in range(scenes)])):
        save_texts(folder, name, texts)
    tree = {
        "format": index_files.FORMAT,
        "version": index_files.VERSION,
        "fingerprint": "0" * 64,
        "splits": SPLITS,
        "sources": ["made"],
        "kinds": [{"size": SIZE, "encoding": "uint16_mm", "keys": ["depth", "image"]}],
        "ids_differ": True,
        "files": {path.stem: {"bytes": path.stat().st_size, "sha256": ""} for path in folder.glob("*.npy")},
    }
    (folder / index_files.FACTS).write_text(json.dumps(tree), encoding="utf-8")


def save_texts(folder: Path, name: str, texts: Sequence[str]) -> None:
    """The two columns of some texts."""
    parts = [text.encode() for text in texts]
    ends: NDArray[np.int64] = np.cumsum([len(part) for part in parts], dtype=np.int64)
    np.save(folder / f"{name}.npy", np.frombuffer(b"".join(parts), np.uint8))
    np.save(folder / f"{name}_end.npy", ends)


def draw(rows: Sequence[Figures], path: Path) -> None:
    """The figures against the number of frames, and the straight lines through them: a fixed part and one a frame."""
    from matplotlib.figure import Figure

    figure = Figure((13, 3.4), layout="constrained")
    panels = {"pack": "s to pack", "open": "s to open", "split": "s to split", "plan": "s to plan 200 steps"}
    kinds = {"packed and made up": ("packed", "made up"), "without an index": ("no index",)}
    for axes, (name, label) in zip(
        figure.subplots(1, 5), {**panels, "private": "MB of a process"}.items(), strict=True
    ):
        for colour, (group, members) in zip(("C0", "C1"), kinds.items(), strict=True):
            values = [(row.frames, getattr(row, name)) for row in rows if row.kind in members]
            points = np.array([(x, y) for x, y in values if y > 0])  # not NaN, and not below the clock's resolution
            if not len(points):
                continue
            axes.plot(*points.T, "o", color=colour, label=group)
            if len(points) > 2 and name != "plan":  # which depends on the number of steps
                # By relative errors, as on these axes they are what is seen.
                slope, fixed = np.polyfit(points[:, 0], points[:, 1], 1, w=1 / points[:, 1])
                x = np.geomspace(points[:, 0].min(), points[:, 0].max(), 100)
                axes.plot(x, fixed + slope * x, "--", color=colour, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="frames", title=label)
        axes.grid(alpha=0.4)
    figure.legend(*figure.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
