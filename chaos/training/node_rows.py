"""What node_kills.py measures: rows, and what the progress of a run records of its losses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import ROOT
from chaos.training import hosts, kills

failed: list[str] = []


def print_row(part: str, what: str, value: str, *, good: bool = True) -> None:
    """Print a row."""
    print(f"{part:<11} {what:<58} {value:>12}{'' if good else '   <- WRONG'}", flush=True)
    if not good:
        failed.append(f"{part}: {what}")


def submit(cluster: hosts.Cluster, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`depthray ... --submit` from this machine, which is no node of the cluster."""
    command = [sys.executable, "-m", "depthray", *arguments, "--submit", cluster.url]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=cluster.environment(), stdout=file, stderr=file)


def kill_node(cluster: hosts.Cluster, number: int) -> float:
    """SIGKILL all processes of a host; the time of day."""
    cluster.nodes[number].kill()
    return time.time()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, *, seconds: float = 240) -> float:
    """Wait until something is true; the time of day. Raises where the process ends before."""
    end = time.time() + seconds
    while not true():
        if process.poll() is not None or time.time() > end:
            raise RuntimeError(f"ended too early, or waited too long:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
    return time.time()


def wait_for_success(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the end of a command that must succeed."""
    if process.wait(600):
        raise RuntimeError(f"exit code {process.returncode}:\n{log.read_text()[-3000:]}")


def last_step(run: Path, *, before: float = float("inf")) -> int:
    """The last step that a run logged."""
    return max((int(r["step"]) for r in kills.records(run) if "step" in r and r["time"] < before), default=0)  # type: ignore


def first_resumption(run: Path, since: float) -> dict[str, Any] | None:
    """The first time a run was resumed after a moment: its time, step and number of workers."""
    for record in kills.records(run):
        is_resumption = record.get("state") == "running" and record["step"]
        if is_resumption and record["time"] > since:  # type: ignore[operator]
            return {key: record[key] for key in ("time", "step", "workers")}
    return None


def next_step_time(run: Path, since: float) -> float | None:
    """When the first step after the run was resumed was logged."""
    start = first_resumption(run, since)
    steps = [r for r in kills.records(run) if start and r["kind"] == "interval" and r["time"] > start["time"]]
    return float(steps[0]["time"]) if steps else None  # type: ignore[arg-type]


def print_recovery(
    part: str, what: str, run: Path, since: float, *, workers: int, most: int, at: float | None = None
) -> None:
    """Print how long a run stood still after a moment (`at`, if not `since`), and how many steps it did twice."""
    start, trained = first_resumption(run, since), next_step_time(run, since)
    assert start and trained
    # A save point may be newer than the last record.
    repeated = max(0, last_step(run, before=start["time"]) - start["step"])
    row = f"{what}: seconds until the next step, {start['workers']} workers"
    print_row(part, row, f"{trained - (at or since):.1f}", good=start["workers"] == workers)
    print_row(part, f"{what}: steps repeated (saved every 10)", f"{repeated}", good=repeated <= most)


def compare_figure(part: str, what: str, key: str, runs: tuple[Path, Path], epoch: int, *, tolerance: float) -> None:
    """Print how far a figure of an epoch differs from that of the undisturbed run."""
    mine, theirs = (float(_epochs(run)[epoch][key]) for run in runs)
    row = f"{key} of {what} {mine:.4f}, undisturbed {theirs:.4f}"
    print_row(part, row, f"{abs(mine - theirs):.1e}", good=abs(mine - theirs) < tolerance)


def _epochs(run: Path) -> dict[int, dict[str, Any]]:
    """The last record of each epoch."""
    return {int(str(record["epoch"])): record for record in kills.records(run) if record["kind"] == "epoch"}


def compare_trial(folder: Path, name: str) -> None:
    """The trial tried most often, trained again by itself and undisturbed."""
    trial, alone = folder / "search" / "trials" / name, folder / f"trial-{name}"
    kills.finish(kills.start(alone, "--local", overrides=[str(trial / "recipe.yaml")]))
    gap = kills.distance(trial, alone)
    print_row("tune", "difference of the weights of the trial that was lost", f"{gap:.1e}", good=gap <= 1e-6)


def requested_saves(run: Path, since: float) -> list[float]:
    """When a run logged that it saved because its workers were about to change."""
    saves = [record for record in kills.records(run) if "about to change" in str(record.get("text"))]
    return [float(record["time"]) for record in saves if record["time"] > since]  # type: ignore


def drain(cluster: hosts.Cluster, host: hosts.Host, *, seconds: int) -> None:
    """Announce to the cluster that a node will be removed."""
    arguments = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--address", cluster.address]
    (node,) = cluster.node_ids(host)
    arguments += ["--node-id", node, "--deadline-remaining-seconds", str(seconds)]
    subprocess.run([hosts.RAY, "drain-node", *arguments], env=cluster.environment(), check=True, capture_output=True)


def render_jpegs(folder: Path) -> None:
    """A few rendered images."""
    arguments = ["data", "render", str(folder.with_name("frames")), "--layout", "folder"]
    arguments += ["--frames", "4", "--size", "96", "128"]
    subprocess.run([sys.executable, "-m", "depthray", *arguments], cwd=ROOT, check=True, capture_output=True)
    folder.mkdir()
    for number, path in enumerate(sorted(folder.with_name("frames").rglob("*.jpg"))):
        os.link(path, folder / f"{number}.jpg")
