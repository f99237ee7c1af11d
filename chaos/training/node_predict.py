"""A data set predicted on two nodes, one of which is lost amid it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from chaos import ROOT
from chaos.training import hosts, kills
from chaos.training.node_rows import kill_node, print_row, submit, wait_for_success, wait_until
from depthray.config.sections import Data
from depthray.data.sources import open_source

FRAMES, FRAMES_A_PART = 2000, 100
SIZE = (96, 128)
NETWORK = ["demo", "data.size=96,128", "data.frames=40", "train.epochs=1", "train.precision=fp32"]


def predict(cluster: hosts.Cluster, folder: Path) -> None:
    """Two workers, one a node: what is written is what one process without Ray writes, to the byte."""
    run, frames, alone, out = (folder / f"predict-{name}" for name in ("run", "frames", "alone", "out"))
    kills.finish(kills.start(run, "--local", overrides=NETWORK))
    sides = [str(side) for side in SIZE]
    _depthray("data", "render", str(frames), "--layout", "shards", "--frames", str(FRAMES), "--size", *sides)
    words = ["predict", str(run), "--data", str(frames), "--frames-per-part", str(FRAMES_A_PART)]
    took = _depthray(*words, "--out", str(alone))
    print_row("predict", f"seconds for {FRAMES} frames, one process without Ray", f"{took:.0f}")

    log, began = folder / "predict.log", time.time()
    process = submit(cluster, log, *words, "--out", str(out), "--workers", "2")
    wait_until(lambda: len(_finished(out)) >= 3, process, log)
    before, since = len(_finished(out)), kill_node(cluster, 2)
    wait_until(lambda: len(_finished(out)) > before + 1, process, log)
    print_row("predict", f"seconds from the loss, after {before} parts, until two more", f"{time.time() - since:.1f}")
    cluster.start(cluster.nodes[2])
    wait_for_success(process, log)
    print_row("predict", "seconds from the command to the end", f"{time.time() - began:.0f}")
    _compare(out, alone)


def _compare(out: Path, alone: Path) -> None:
    """Print how many frames there are, how many more than once, and how many files differ."""
    counts = Counter(frame.id for frame in open_source(Data(root=str(out), source="shards")).frames)
    print_row("predict", "frames", f"{len(counts)}", good=len(counts) == FRAMES)
    more = sum(count > 1 for count in counts.values())
    print_row("predict", "of them there more than once", f"{more}", good=not more)
    names = {str(path.relative_to(place)) for place in (out, alone) for path in place.rglob("*") if path.is_file()}
    shards = sorted(name for name in names if name.endswith(".h5"))
    differ = [name for name in shards if not _same(out / name, alone / name)]
    print_row(
        "predict", f"of {len(shards)} shards, not as without Ray", f"{len(differ)}", good=not differ and bool(shards)
    )


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _finished(out: Path) -> list[Path]:
    """Records of the parts that are finished."""
    return list((out / "parts").glob("*.json"))


def _depthray(*words: str) -> float:
    """A command of depthray on this machine, which must succeed -> the seconds it took."""
    began = time.time()
    # One thread, as a worker of one CPU has: sums that are split otherwise differ in their last digits.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "depthray", *words]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.time() - began
