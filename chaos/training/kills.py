"""Kill a training run, or take its storage away, at seeded steps; it must end in the right weights.

    python -m chaos.training.kills [--points 50] [--kinds worker,raylet] [--seed 0]

The kinds: a worker, all workers, a node of a cluster (its raylet), the driver (then --resume), storage that fails for
some seconds or for good, a disk that is full until space is freed or for good. A run that can go on must end by itself
with the weights of the run left alone: equal bit for bit on one worker, to 1e-6 on two. One that cannot ends with one
line and exit code 3 or 5, and --resume brings it to the same weights. Throughout no committed checkpoint is lost, and
no run starts again from an earlier place than the last of them. Prints a row a point; exits 1 if one fails. Of a row,
`resumed` is how often the run went back, `lost` by how many steps at most, `wait` the seconds from the harm to the next
step after it, to the message that ended the run, or for which the storage failed, and `s` the seconds of the whole.
Kinds of storage mount file systems of their own, which needs root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from object_store import serving

from chaos.training import checks, kinds
from chaos.training.disks import Bucket, check_rights
from chaos.training.runs import TORCHRUN, WORDS, distance, finish, killed_run, records, start, wait_for_step, workers
from cluster.one_host import HostPlan, OneHost, one_host

__all__ = ["TORCHRUN", "WORDS", "distance", "finish", "killed_run", "records", "start", "workers"]
NO_PLAN = HostPlan()
_HEAD = "{:>5} {:<16} {:<9} {:<11} {:>4} {:>7} {:>4} {:>5} {:>4} {:>10}"


@dataclass
class Row:
    """How a point ended."""

    back: checks.Back
    waited: float | None
    gap: float
    message: str


def main() -> int:
    """Run all points and print a row each."""
    args = _arguments()
    todo = kinds.points(args.points, args.kinds, args.seed)
    if args.only:
        todo = [point for point in todo if point.number in args.only]
    if any(kinds.mounts(point) for point in todo):
        check_rights()
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir="/tmp"))
    began = time.monotonic()
    with serving(Bucket()) as bucket:
        os.environ["DEPTHRAY_CACHE"] = str(folder / "cache")
        _straight(folder)
        print(_HEAD.format("point", "kind", "where", "how", "step", "resumed", "lost", "wait", "s", "difference"))
        here = [point for point in todo if not point.where.startswith("cluster")]
        there = [point for point in todo if point not in here]
        failed = [point.number for point in here if not _row(point, folder, bucket)]
        if there:  # afterwards, so that there is one Ray cluster at a time
            plan = HostPlan(2, 1, args.port, args.dashboard_port, args.worker_ports)
            with one_host(plan, args.temp_dir) as host:
                failed += [point.number for point in there if not _row(point, folder, bucket, host, plan)]
    print(f"{len(todo) - len(failed)} of {len(todo)} ended as they must, in {time.monotonic() - began:.0f} s")
    if failed:
        print(f"failed: {failed}; what they said is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--kinds", type=_kinds, default=list(kinds.MIX), help=", ".join(kinds.MIX))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=_numbers, metavar="N,N", help="these of the points, by number")
    parser.add_argument("--port", type=int, default=6379, help="of the cluster (default: 6379)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="of the cluster (default: 8265)")
    parser.add_argument("--worker-ports", default="", metavar="LOW-HIGH", help="of the cluster (default: any)")
    parser.add_argument("--temp-dir", type=Path, help="of the cluster (default: a new one)")
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    """The kinds that begin with one of the names given: `storage` means both of them."""
    if found := [kind for kind in kinds.MIX if kind.startswith(tuple(text.split(",")))]:
        return found
    raise argparse.ArgumentTypeError(f"choose from: {', '.join(kinds.MIX)}")


def _numbers(text: str) -> set[int]:
    return {int(word) for word in text.split(",")}


def _straight(folder: Path) -> None:
    """The runs left alone, without Ray."""
    finish(start(folder / "straight-1", "--local"))
    finish(start(folder / "straight-2", under=(*TORCHRUN, "2")))


def _row(
    point: kinds.Point, folder: Path, bucket: Bucket, host: OneHost | None = None, plan: HostPlan = NO_PLAN
) -> bool:
    """Take a point and print its row; whether it ended as it must."""
    began = time.monotonic()
    given = (point.number, point.kind, point.where, point.how, point.step)
    try:
        row = _take(point, folder, bucket, host, plan)
    except Exception as error:
        (folder / f"point-{point.number}.log").write_text(traceback.format_exc(), "utf-8")
        said = next(iter(str(error).splitlines()), type(error).__name__)
        print(_HEAD.format(*given, "", "", "", f"{time.monotonic() - began:.0f}", "FAILED"), said, flush=True)
        return False
    seconds, gap = f"{time.monotonic() - began:.0f}", f"{row.gap:.1e}"
    waited = "-" if row.waited is None else f"{row.waited:.0f}"
    print(_HEAD.format(*given, row.back.times, row.back.steps, waited, seconds, gap), row.message[:160], flush=True)
    return True


def _take(point: kinds.Point, folder: Path, bucket: Bucket, host: OneHost | None, plan: HostPlan) -> Row:
    """Start a run, harm it at the step, see it to its end, and check what must hold."""
    os.environ["DEPTHRAY_CACHE"] = str(folder / "cache")
    with kinds.lying(point, folder / f"point-{point.number}", bucket) as (place, storage):
        process = kinds.start(point, place, host)
        scene = kinds.Scene(point, place, storage, host, plan, random.Random(point.seed), process)
        try:
            wait_for_step(place.near, point.step, process)
            scene.before, scene.harmed = place.listed(), time.time()
            kinds.harm(point)(scene)
        finally:
            scene.process.kill()
            if storage:
                storage.mend()
        checks.none_lost(scene.before, place.saved())
        checks.none_repeated(records(place.near), scene.before, scene.harmed)
        back = checks.no_silent_restart(records(place.near), scene.before, scene.furthest)
        gap = distance(place.fetch(folder / f"final-{point.number}"), folder / f"straight-{point.workers}")
    assert back.times or not scene.taken_up, "another process went on with the run, and did not say from where"
    assert gap <= (0.0 if point.workers == 1 else 1e-6), f"the weights differ by {gap:.1e}"
    waited = back.on_at - scene.harmed if scene.waited is None and back.on_at else scene.waited
    return Row(back, waited, gap, scene.message)


if __name__ == "__main__":
    sys.exit(main())
