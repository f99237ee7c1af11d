"""Kill a training run, or take its storage away, at seeded steps; it must end in the right weights.

    python -m chaos.training.kills [--points 50] [--kinds worker,raylet] [--seed 0]

The kinds: a worker, all workers, a node of a cluster (its raylet), the driver (then --resume), storage that fails for
some seconds or for good, a disk that is full until space is freed or for good. A run that can continue must end by
itself with the weights of the undisturbed run: equal bit for bit on one worker, to 1e-6 on two. One that cannot ends
with one line and exit code 3 or 5, and --resume leads to the same weights. Throughout no committed checkpoint is lost,
and no run restarts from an earlier step than the last of them. Prints a row a point; exits 1 if one fails. Of a row,
`resumed` is how often the run resumed, `lost` how many steps it repeated at most, `wait` the seconds from the harm to
the next step after it, to the message that ended the run, or for which the storage failed, and `s` the seconds of all.
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
from chaos.training.disks import FailingStore, check_root
from chaos.training.runs import (
    OVERRIDES,
    TORCHRUN,
    distance,
    finish,
    kill,
    killed_run,
    records,
    start,
    wait_for_step,
    workers,
)
from cluster.one_host import HostPlan, OneHost, one_host

# Tests of training on Ray use these, too.
__all__ = ["OVERRIDES", "TORCHRUN", "distance", "finish", "kill", "killed_run", "records", "start", "workers"]
NO_PLAN = HostPlan()
_HEAD = "{:>5} {:<16} {:<9} {:<11} {:>4} {:>7} {:>4} {:>5} {:>4} {:>10}"


@dataclass
class Row:
    """How a point ended."""

    restarts: checks.Restarts
    waited: float | None
    difference: float
    message: str


def main() -> int:
    """Run all points and print a row each."""
    args = _arguments()
    points = kinds.make_points(args.points, args.kinds, args.seed)
    if args.only:
        points = [point for point in points if point.number in args.only]
    if any(kinds.needs_mount(point) for point in points):
        check_root()
    # Ray's workers have niceness 15 otherwise, with which a machine that does other work starts none within the limits.
    os.environ.setdefault("RAY_worker_niceness", "0")
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir="/tmp"))
    began = time.monotonic()
    with serving(FailingStore()) as store:
        os.environ["DEPTHRAY_CACHE"] = str(folder / "cache")
        _train_undisturbed(folder)
        print(_HEAD.format("point", "kind", "where", "variant", "step", "resumed", "lost", "wait", "s", "difference"))
        on_cluster = [point for point in points if point.where.startswith("cluster")]
        others = [point for point in points if point not in on_cluster]
        failed = [point.number for point in others if not _print_row(point, folder, store)]
        if on_cluster:  # afterwards, so that there is one Ray cluster at a time
            plan = HostPlan(2, 1, args.port, args.dashboard_port, args.worker_ports)
            with one_host(plan, args.temp_dir) as host:
                failed += [point.number for point in on_cluster if not _print_row(point, folder, store, host, plan)]
    print(f"{len(points) - len(failed)} of {len(points)} passed, in {time.monotonic() - began:.0f} s")
    if failed:
        print(f"failed: {failed}; their output is in {folder}")
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
    if matching := [kind for kind in kinds.MIX if kind.startswith(tuple(text.split(",")))]:
        return matching
    raise argparse.ArgumentTypeError(f"choose from: {', '.join(kinds.MIX)}")


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def _train_undisturbed(folder: Path) -> None:
    """The runs whose weights all others must have, without Ray."""
    # One for each number of workers, as sums over two of them differ in their last digits.
    finish(start(folder / "undisturbed-1", "--local"))
    finish(start(folder / "undisturbed-2", launcher=(*TORCHRUN, "2")))


def _print_row(
    point: kinds.Point, folder: Path, store: FailingStore, host: OneHost | None = None, plan: HostPlan = NO_PLAN
) -> bool:
    """Run a point and print its row; whether it passed."""
    began = time.monotonic()
    columns = (point.number, point.kind, point.where, point.variant, point.step)
    try:
        row = _run(point, folder, store, host, plan)
    except Exception as error:
        (folder / f"point-{point.number}.log").write_text(traceback.format_exc(), "utf-8")
        message = next(iter(str(error).splitlines()), type(error).__name__)
        print(_HEAD.format(*columns, "", "", "", f"{time.monotonic() - began:.0f}", "FAILED"), message, flush=True)
        return False
    seconds, difference = f"{time.monotonic() - began:.0f}", f"{row.difference:.1e}"
    waited = "-" if row.waited is None else f"{row.waited:.0f}"
    restarts = (row.restarts.count, row.restarts.repeated_steps)
    print(_HEAD.format(*columns, *restarts, waited, seconds, difference), row.message[:160], flush=True)
    return True


def _run(point: kinds.Point, folder: Path, store: FailingStore, host: OneHost | None, plan: HostPlan) -> Row:
    """Start a run, harm it at the step, wait for its end, and check what must hold."""
    os.environ["DEPTHRAY_CACHE"] = str(folder / "cache")
    with kinds.open_location(point, folder / f"point-{point.number}", store) as (location, storage):
        process = kinds.start(point, location, host)
        experiment = kinds.Experiment(point, location, storage, host, plan, random.Random(point.seed), process)
        try:
            wait_for_step(location.local_folder, point.step, process)
            experiment.before, experiment.harmed_at = location.list_scores(), time.time()
            kinds.harm_of(point)(experiment)
        finally:
            experiment.process.kill()  # else it would write into storage that is taken away
            if storage:
                storage.repair()  # for the checks that follow, and to be unmounted
        checks.check_none_lost(experiment.before, location.verify_scores())
        checks.check_none_repeated(records(location.local_folder), experiment.before, experiment.harmed_at)
        restarts = checks.check_restarts(records(location.local_folder), experiment.before, experiment.furthest)
        final = location.download(folder / f"final-{point.number}")
        difference = distance(final, folder / f"undisturbed-{point.workers}")
    assert restarts.count or not experiment.resumed, "another process resumed the run without a record of where"
    assert difference <= (0.0 if point.workers == 1 else 1e-6), f"the weights differ by {difference:.1e}"
    waited = experiment.waited
    # Where nothing was waited for on purpose, the time until it trained again is of interest.
    if waited is None and restarts.trained_at:
        waited = restarts.trained_at - experiment.harmed_at
    return Row(restarts, waited, difference, experiment.message)


if __name__ == "__main__":
    sys.exit(main())
