"""The kinds of harm done to a run, and how it must end: with the right weights, or with a clear message before that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.training import checks, runs
from chaos.training.disks import Disk, FailingStore, FillingDisk, Storage
from cluster import one_host

LONG_OUTAGE = 30.0  # seconds that every third storage error lasts
SHORT_RETRY, LONG_RETRY = "3", "120"  # DEPTHRAY_STORAGE_PATIENCE, where storage fails for good and where it does not
# Of each kind where a run is trained and how its storage fails. `local` is --local; `own 2` a local Ray with 2 workers;
# `cluster 2` 2 workers on a cluster of several nodes.
VARIANTS = {
    "worker": ("cluster 2", "cluster 1", "own 2", "cluster 2", "own 1", "cluster 1"),
    "all workers": ("cluster 2", "own 2", "cluster 2"),
    "raylet": ("cluster 2", "cluster 1"),
    "driver": ("local", "cluster 2", "local elsewhere", "cluster 1", "own 1"),
    "storage errors": (
        "local read-only",
        "local refused",
        "cluster 1 hang",
        "local 500",
        "cluster 1 read-only",
        "local slow",
        "local hang",
        "cluster 2 refused",
        "local lost writes",
    ),
    "storage gone": (
        "local read-only",
        "cluster 1 read-only",
        "local refused",
        "local unmounted",
        "local lost writes",
        "cluster 1 refused",
        "local 500",
    ),
    "full disk": ("local freed", "local kept", "cluster 1 freed", "cluster 1 kept", "own 2 freed", "local kept"),
}
MIX = {
    "worker": 8,
    "all workers": 5,
    "raylet": 7,
    "driver": 8,
    "storage errors": 9,
    "storage gone": 7,
    "full disk": 6,
}
STORE_FAULTS = ("refused", "500", "slow", "elsewhere")


@dataclass(frozen=True)
class Point:
    """One run and what is done to it."""

    number: int
    kind: str
    where: str
    variant: str
    step: int
    seconds: float
    seed: str

    @property
    def workers(self) -> int:
        return int(self.where.split()[1]) if " " in self.where else 1


@dataclass
class Experiment:
    """A run that is being harmed, and what the harm and the checks need."""

    point: Point
    location: checks.RunLocation
    storage: Storage | None
    host: one_host.OneHost | None
    plan: one_host.HostPlan
    rng: random.Random
    process: subprocess.Popen[str]
    before: checks.Scores = field(default_factory=dict)  # what was saved before the harm
    harmed_at: float = 0.0  # time of day of the harm
    furthest: int = 0  # the step that was reached, where its record is lost
    waited: float | None = None  # seconds that the storage failed, or until the message
    resumed: bool = False  # by another process, with --resume
    message: str = ""


def make_points(count: int, kinds: list[str], seed: int) -> list[Point]:
    """So many points, the kinds evenly mixed."""
    # Each kind at equal distances, so that any number of points has about the mix of all.
    turns = sorted(((turn + 0.5) / MIX[kind], turn, kind) for kind in kinds for turn in range(MIX[kind]))
    return [_make_point(number, turns, seed) for number in range(count)]


def _make_point(number: int, turns: list[tuple[float, int, str]], seed: int) -> Point:
    _, turn, kind = turns[number % len(turns)]
    turn += number // len(turns) * MIX[kind]
    # Of the point alone: with --only it does what it does among all.
    rng = random.Random(f"{seed} {number}")
    where, *variant = VARIANTS[kind][turn % len(VARIANTS[kind])].split(" ", 1)
    if where != "local":
        count, *variant = variant[0].split(" ", 1)
        where = f"{where} {count}"
    seconds = LONG_OUTAGE if turn % 3 == 0 else rng.uniform(2, 8)
    # Not so late that the run could end before it is harmed.
    step = rng.randrange(2, runs.STEPS - 3)
    return Point(number, kind, where, "".join(variant), step, seconds, f"{seed} {number}")


def needs_mount(point: Point) -> bool:
    """Whether a point has a file system of its own."""
    return point.variant not in ("", *STORE_FAULTS)


@contextmanager
def open_location(
    point: Point, folder: Path, store: FailingStore
) -> Iterator[tuple[checks.RunLocation, Storage | None]]:
    """Where a run is stored, on the kind of storage that the point harms."""
    if point.variant in STORE_FAULTS:
        yield checks.RunLocation(store.url(f"runs/{point.number}")), store
    elif point.kind == "full disk":
        with FillingDisk(folder) as small:
            yield checks.RunLocation(str(folder / "run")), small
    elif point.variant:
        with Disk(folder) as disk:
            yield checks.RunLocation(str(folder / "run")), disk
    else:
        yield checks.RunLocation(str(folder / "run")), None


def start(
    point: Point, location: checks.RunLocation, host: one_host.OneHost | None, *flags: str
) -> subprocess.Popen[str]:
    """The training process of a point."""
    env = {"DEPTHRAY_STORAGE_PATIENCE": SHORT_RETRY if harm_of(point) is fail_for_good else LONG_RETRY}
    options = ["--local"] if point.where == "local" else ["--workers", str(point.workers), "--cpus-per-worker", "1"]
    if host and point.where.startswith("cluster"):
        options += ["--address", host.env["RAY_ADDRESS"]]
        env |= host.env
    return runs.start(location.out, *options, *flags, env=env)


def kill_workers(experiment: Experiment) -> None:
    """Workers are replaced, and the run continues."""
    runs.kill(experiment.point.kind, experiment.process, experiment.rng)
    _wait_for_end(experiment, 0)


def kill_raylet(experiment: Experiment) -> None:
    """A node is lost and comes back some seconds later; the run waits for it, or continues without it."""
    host = experiment.host
    assert host
    number = experiment.rng.randrange(1, len(host.processes))
    node = host.processes[number]
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text("ascii").split()  # of `ray start`
    (raylet,) = [int(child) for child in children if "raylet" in Path(f"/proc/{child}/comm").read_text("ascii")]
    os.kill(raylet, signal.SIGKILL)
    time.sleep(experiment.rng.uniform(0, 8))
    one_host.stop_nodes([host.processes.pop(number)])
    one_host.join_node(host, experiment.plan, number)
    host.processes.insert(number, host.processes.pop())  # appended by join_node; the order is that of the numbers
    _wait_for_end(experiment, 0)


def kill_driver(experiment: Experiment) -> None:
    """A run without a driver ends, and another driver resumes it; on a store that may be one on another machine."""
    runs.kill("driver", experiment.process, experiment.rng)
    if experiment.point.variant == "elsewhere":
        experiment.furthest = checks.furthest_step(runs.records(experiment.location.local_folder))
        os.environ["DEPTHRAY_CACHE"] += "-elsewhere"  # another cache is all that makes another machine here
    _resume(experiment)


def fail_for_a_while(experiment: Experiment) -> None:
    """The run outlasts the failure."""
    assert experiment.storage
    experiment.storage.fail(experiment.point.variant)
    time.sleep(experiment.point.seconds)
    code = experiment.process.poll()
    assert code is None, f"ended meanwhile with {code}: {_last_line_so_far(experiment)}"
    experiment.storage.repair()
    experiment.waited = time.time() - experiment.harmed_at
    _wait_for_end(experiment, 0)


def fail_for_good(experiment: Experiment) -> None:
    """The run ends in one line, all that was saved is there, and the run resumes when the storage is back."""
    assert experiment.storage
    experiment.storage.fail(experiment.point.variant)
    output = _wait_for_end(experiment, 3, 5)
    experiment.waited = time.time() - experiment.harmed_at
    experiment.message = checks.check_one_message(experiment.process.returncode, output, (3, 5))
    # Of the others checkpoints can be read, but no run can write: resuming must fail in one line, too.
    if experiment.point.variant not in (*STORE_FAULTS, "unmounted"):
        checks.check_none_lost(experiment.before, experiment.location.verify_scores())
        experiment.process = start(experiment.point, experiment.location, experiment.host, "--resume")
        output = _wait_for_end(experiment, 2, 3, 5)
        checks.check_one_message(experiment.process.returncode, output, (2, 3, 5))
    experiment.storage.repair()
    checks.check_none_lost(experiment.before, experiment.location.verify_scores())
    _resume(experiment)


def _resume(experiment: Experiment) -> None:
    experiment.resumed = True
    experiment.process = start(experiment.point, experiment.location, experiment.host, "--resume")
    _wait_for_end(experiment, 0)


def _wait_for_end(experiment: Experiment, *codes: int) -> str:
    output, _ = experiment.process.communicate(timeout=240)
    if experiment.process.returncode not in codes:
        raise AssertionError(f"exit code {experiment.process.returncode}: {_last_line(output)}\n{output}")
    return output


def _last_line_so_far(experiment: Experiment) -> str:
    return _last_line(experiment.process.communicate(timeout=20)[0])


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")


def harm_of(point: Point) -> Callable[[Experiment], None]:
    """What is done to the run of a point."""
    return fail_for_good if point.variant == "kept" else HARM[point.kind]


HARM = {
    "worker": kill_workers,
    "all workers": kill_workers,
    "raylet": kill_raylet,
    "driver": kill_driver,
    "storage errors": fail_for_a_while,
    "storage gone": fail_for_good,
    "full disk": fail_for_a_while,
}
