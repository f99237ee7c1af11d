"""What node_kills.py measures: rows, and what the progress of a run tells of its losses."""

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


def say(part: str, what: str, value: str, *, good: bool = True) -> None:
    """Print a row."""
    print(f"{part:<8} {what:<58} {value:>12}{'' if good else '   <- WRONG'}", flush=True)
    if not good:
        failed.append(f"{part}: {what}")


def submit(cluster: hosts.Cluster, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """`depthray ... --submit` from this machine, which is no node of the cluster."""
    command = [sys.executable, "-m", "depthray", *words, "--submit", cluster.url]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=cluster.environment(), stdout=file, stderr=file)


def until(seen: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, *, seconds: float = 240) -> float:
    """The time of day when something is seen. Raises where the process ends before."""
    end = time.time() + seconds
    while not seen():
        if process.poll() is not None or time.time() > end:
            raise RuntimeError(f"ended too early, or waited too long:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
    return time.time()


def ended(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the end of a command that must succeed."""
    if process.wait(600):
        raise RuntimeError(f"exit code {process.returncode}:\n{log.read_text()[-3000:]}")


def last_step(run: Path, *, before: float = float("inf")) -> int:
    """The last step that a run logged."""
    return max((int(r["step"]) for r in kills.records(run) if "step" in r and r["time"] < before), default=0)  # type: ignore


def resumed(run: Path, since: float) -> dict[str, Any] | None:
    """The first time a run was resumed after a moment: its time, step and number of workers."""
    for record in kills.records(run):
        resumed = record.get("state") == "running" and record["step"]
        if resumed and record["time"] > since:  # type: ignore[operator]
            return {key: record[key] for key in ("time", "step", "workers")}
    return None


def trained_again(run: Path, since: float) -> float | None:
    """When the first step after the run was resumed was logged."""
    found = resumed(run, since)
    told = [r for r in kills.records(run) if found and r["kind"] == "interval" and r["time"] > found["time"]]
    return float(told[0]["time"]) if told else None  # type: ignore[arg-type]


def recovery(
    part: str, what: str, run: Path, since: float, *, workers: int, most: int, at: float | None = None
) -> None:
    """Print how long a run stood still after a moment (`at`, if not `since`), and how many steps it did twice."""
    found, again = resumed(run, since), trained_again(run, since)
    assert found and again
    lost = max(
        0, last_step(run, before=found["time"]) - found["step"]
    )  # a save point may be newer than the last record
    right = found["workers"] == workers
    told = f"{what}: seconds until the next step, {found['workers']} workers"
    say(part, told, f"{again - (at or since):.1f}", good=right)
    say(part, f"{what}: steps done again (saved every 10)", f"{lost}", good=lost <= most)


def like_undisturbed(part: str, what: str, key: str, runs: tuple[Path, Path], epoch: int, *, tolerance: float) -> None:
    """Print how far a figure of an epoch differs from that of the undisturbed run."""
    mine, theirs = (float(_epochs(run)[epoch][key]) for run in runs)
    told = f"{key} of {what} {mine:.4f}, undisturbed {theirs:.4f}"
    say(part, told, f"{abs(mine - theirs):.1e}", good=abs(mine - theirs) < tolerance)


def _epochs(run: Path) -> dict[int, dict[str, Any]]:
    """The last record of each epoch."""
    return {int(str(record["epoch"])): record for record in kills.records(run) if record["kind"] == "epoch"}


def undisturbed_trial(folder: Path, name: str) -> None:
    """The trial tried most often, trained again by itself and undisturbed."""
    trial, alone = folder / "search" / "trials" / name, folder / f"trial-{name}"
    kills.finish(kills.start(alone, "--local", words=[str(trial / "recipe.yaml")]))
    gap = kills.distance(trial, alone)
    say("tune", "difference of the weights of the trial that was lost", f"{gap:.1e}", good=gap <= 1e-6)


def saved_as_asked(run: Path, since: float) -> list[float]:
    """When a run logged that it saved because its workers were about to change."""
    told = [record for record in kills.records(run) if "about to change" in str(record.get("text"))]
    return [float(record["time"]) for record in told if record["time"] > since]  # type: ignore


def drain(cluster: hosts.Cluster, host: hosts.Host, *, seconds: int) -> None:
    """Announce to the cluster that a node will be removed."""
    words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--address", cluster.address]
    (node,) = cluster.node_ids(host)
    words += ["--node-id", node, "--deadline-remaining-seconds", str(seconds)]
    subprocess.run([hosts.RAY, "drain-node", *words], env=cluster.environment(), check=True, capture_output=True)


def jpegs(folder: Path) -> None:
    """A few rendered images."""
    command = [
        "data",
        "render",
        str(folder.with_name("frames")),
        "--layout",
        "folder",
        "--frames",
        "4",
        "--size",
        "96",
        "128",
    ]
    subprocess.run([sys.executable, "-m", "depthray", *command], cwd=ROOT, check=True, capture_output=True)
    folder.mkdir()
    for number, path in enumerate(sorted(folder.with_name("frames").rglob("*.jpg"))):
        os.link(path, folder / f"{number}.jpg")
