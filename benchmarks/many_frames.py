"""Conversion of many frames into shards: frames a second and memory of one process and of several, to the same bytes.

    python benchmarks/many_frames.py [--frames 2000] [--processes 8] [--work DIR]

The frames are files of some rendered rooms, named again and again by an index, so that neither rendering nor the disk
is measured. They are converted by one process, by several, and by several that are killed halfway and started again;
then the three folders are compared to the last bit. Each process opens the data set by itself and converts every n-th
range, as the workers of `depthray data convert --workers N` do. Memory is the most that a process has had resident by
the time that a quarter, half and all of the ranges were ready: flat, where these are equal.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from depthray.config.sections import Data
from depthray.data import packing, sources
from depthray.data.packing import ConversionPlan
from depthray.data.shards import index_files
from depthray.data.sources import synthetic

PER_SCENE = 4  # frames of a rendered room
MARKS = (0.25, 0.5, 1.0)  # shares of the ranges at which memory is read
PATIENCE = 600.0  # seconds that a range may take


class Progress(NamedTuple):
    """What a process says when a range is ready."""

    number: int
    resident: float  # MiB, the most until now
    seconds: float  # of processor time of the process, all in all


class ConversionFigures(NamedTuple):
    """What was measured of a conversion."""

    seconds: float  # by the clock, with the start of the processes
    processor: float  # seconds of processor time of all processes
    resident: list[float]  # MiB of the largest process, at each of MARKS


def main() -> int:
    """Convert three times, print the figures, and compare; 1 where the folders differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--rooms", type=int, default=64, help="different frames among them")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--frames-per-shard", type=int, default=128)
    parser.add_argument("--work", type=Path, help="folder with space for one copy (default: a temporary one)")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="depthray-many-", dir=args.work))
    try:
        make_folder(work / "frames", args.frames, rooms=args.rooms, size=tuple(args.size))
        return measure(work, processes=args.processes, frames_per_shard=args.frames_per_shard)
    finally:
        shutil.rmtree(work)


def make_folder(root: Path, count: int, *, rooms: int, size: tuple[int, int]) -> None:
    """A folder whose index names the files of some rendered frames `count` times, each time by another id."""
    synthetic.write_rooms(root, frames=rooms, size=size)
    with (root / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for number, row in enumerate(itertools.islice(itertools.cycle(rows), count)):
            table.writerow(row | {"id": f"{number:09d}", "scene": f"room-{number // PER_SCENE}"})


def measure(work: Path, *, processes: int, frames_per_shard: int) -> int:
    """Convert `work`/frames by one process, by several, and by several that are interrupted."""
    digests, facts = [], None
    print(f"{'':30s} frames/s  frames a CPU second   MiB at {', '.join(f'{mark:.0%}' for mark in MARKS)}")
    for name, number, stops in (("one", 1, False), ("several", processes, False), ("interrupted", processes, True)):
        section, plan = plan_of(work / "frames", work / name, frames_per_shard)
        facts = facts or plan.provenance  # one date for all, which may change meanwhile
        plan = plan._replace(provenance=facts)
        label = f"{number} process{'es' * (number > 1)}{', killed halfway and again' * stops}"
        if stops:
            run(section, plan, number, last=plan.ranges[len(plan.ranges) // 2])
        found = run(section, plan, number)
        index_files.write(work / name)
        speeds = "" if stops else f"{plan.total / found.seconds:8.1f} {plan.total / found.processor:20.1f}"
        print(f"{label:30s} {speeds:29s}   {', '.join(f'{each:.0f}' for each in found.resident)}", flush=True)
        digests.append(digest_of(work / name))
        shutil.rmtree(work / name)
    same = len(set(digests)) == 1
    verdict = "the same bytes" if same else "DIFFERENT BYTES"
    print(f"{plan.total} frames in {len(plan.ranges)} shards: {verdict} each time")
    return 0 if same else 1


def plan_of(root: Path, out: Path, frames_per_shard: int) -> tuple[Data, ConversionPlan]:
    """The section by which processes read the frames, and the plan of their conversion."""
    section = packing.select_all_inputs(Data(source="folder", root=str(root)))
    _, plan = packing.plan_section(section, out, name=root.name, frames_per_shard=frames_per_shard)
    return section, plan


def run(section: Data, plan: ConversionPlan, processes: int, *, last: int | None = None) -> ConversionFigures:
    """Convert all ranges; with `last` the processes are killed as soon as one of them has converted that range."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    workers = [
        context.Process(target=work_on, args=(section, plan, plan.ranges[each::processes], queue), daemon=True)
        for each in range(processes)
    ]
    started, latest, peak = time.perf_counter(), dict[int, Progress](), list[float]()
    for worker in workers:
        worker.start()
    for _ in plan.ranges:
        pid, progress = queue.get(timeout=PATIENCE)
        latest[pid] = progress
        peak.append(max(each.resident for each in latest.values()))
        if progress.number == last:
            break
    for worker in workers:
        if last is not None:
            worker.kill()
        worker.join()
    marks = [peak[min(len(peak), max(1, round(mark * len(plan.ranges)))) - 1] for mark in MARKS]
    return ConversionFigures(time.perf_counter() - started, sum(each.seconds for each in latest.values()), marks)


def work_on(section: Data, plan: ConversionPlan, ranges: list[int], queue: Any) -> None:
    """Convert some ranges in this process, and say so after each."""
    cv2.setNumThreads(0)  # the processes are the parallelism
    source = sources.open_source(section, verify=False)
    for number in ranges:
        packing.convert_range(source, plan, number)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts it in KiB
        queue.put((os.getpid(), Progress(number, resident, time.process_time())))


def digest_of(folder: Path) -> str:
    """SHA-256 of the names and bytes of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
