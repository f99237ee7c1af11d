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
from chaos.training.disks import Bucket, Disk, Small, Storage
from cluster import one_host

LONG = 30.0  # seconds that every third storage error lasts
SHORT, PATIENCE = "3", "120"  # DEPTHRAY_STORAGE_PATIENCE, where storage fails for good and where it does not
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
STORES = ("refused", "500", "slow", "elsewhere")


@dataclass(frozen=True)
class Point:
    """One run and what is done to it."""

    number: int
    kind: str
    where: str
    how: str
    step: int
    seconds: float
    seed: str

    @property
    def workers(self) -> int:
        return int(self.where.split()[1]) if " " in self.where else 1


@dataclass
class Scene:
    """What a point has at hand."""

    point: Point
    place: checks.Place
    storage: Storage | None
    host: one_host.OneHost | None
    plan: one_host.HostPlan
    chance: random.Random
    process: subprocess.Popen[str]
    before: checks.Saved = field(default_factory=dict)  # what was saved before the harm
    harmed: float = 0.0  # time of day of the harm
    furthest: int = 0  # the step that was reached, where its record is lost
    waited: float | None = None  # seconds that the storage failed, or until the message
    taken_up: bool = False  # by another process, with --resume
    message: str = ""


def points(count: int, kinds: list[str], seed: int) -> list[Point]:
    """So many points, the kinds evenly mixed."""
    turns = sorted(((turn + 0.5) / MIX[kind], turn, kind) for kind in kinds for turn in range(MIX[kind]))
    return [_point(number, turns, seed) for number in range(count)]


def _point(number: int, turns: list[tuple[float, int, str]], seed: int) -> Point:
    _, turn, kind = turns[number % len(turns)]
    turn += number // len(turns) * MIX[kind]
    chance = random.Random(f"{seed} {number}")
    where, *how = VARIANTS[kind][turn % len(VARIANTS[kind])].split(" ", 1)
    if where != "local":
        count, *how = how[0].split(" ", 1)
        where = f"{where} {count}"
    seconds = LONG if turn % 3 == 0 else chance.uniform(2, 8)
    return Point(number, kind, where, "".join(how), chance.randrange(2, runs.STEPS - 3), seconds, f"{seed} {number}")


def mounts(point: Point) -> bool:
    """Whether a point has a file system of its own."""
    return point.how not in ("", *STORES)


@contextmanager
def lying(point: Point, folder: Path, bucket: Bucket) -> Iterator[tuple[checks.Place, Storage | None]]:
    """A place for a run, on the kind of storage that the point harms."""
    if point.how in STORES:
        yield checks.Place(bucket.url(f"runs/{point.number}")), bucket
    elif point.kind == "full disk":
        with Small(folder) as small:
            yield checks.Place(str(folder / "run")), small
    elif point.how:
        with Disk(folder) as disk:
            yield checks.Place(str(folder / "run")), disk
    else:
        yield checks.Place(str(folder / "run")), None


def start(point: Point, place: checks.Place, host: one_host.OneHost | None, *more: str) -> subprocess.Popen[str]:
    """The training process of a point."""
    env = {"DEPTHRAY_STORAGE_PATIENCE": SHORT if harm(point) is fail_for_good else PATIENCE}
    flags = ["--local"] if point.where == "local" else ["--workers", str(point.workers), "--cpus-per-worker", "1"]
    if host and point.where.startswith("cluster"):
        flags += ["--address", host.env["RAY_ADDRESS"]]
        env |= host.env
    return runs.start(place.out, *flags, *more, env=env)


def kill_workers(scene: Scene) -> None:
    """Workers are replaced, and the run continues."""
    runs.kill(scene.point.kind, scene.process, scene.chance)
    _ends(scene, 0)


def kill_raylet(scene: Scene) -> None:
    """A node is lost and comes back some seconds later; the run waits for it, or continues without it."""
    host = scene.host
    assert host
    number = scene.chance.randrange(1, len(host.processes))
    node = host.processes[number]
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text("ascii").split()
    (raylet,) = [int(child) for child in children if "raylet" in Path(f"/proc/{child}/comm").read_text("ascii")]
    os.kill(raylet, signal.SIGKILL)
    time.sleep(scene.chance.uniform(0, 8))
    one_host.stop_nodes([host.processes.pop(number)])
    one_host.join_node(host, scene.plan, number)
    host.processes.insert(number, host.processes.pop())
    _ends(scene, 0)


def kill_driver(scene: Scene) -> None:
    """A run without a driver ends, and another driver resumes it; on a store that may be one on another machine."""
    runs.kill("driver", scene.process, scene.chance)
    if scene.point.how == "elsewhere":
        scene.furthest = checks.reached(runs.records(scene.place.near))
        os.environ["DEPTHRAY_CACHE"] += "-elsewhere"
    _resume(scene)


def fail_for_a_while(scene: Scene) -> None:
    """The run lasts longer than the failure."""
    assert scene.storage
    scene.storage.fail(scene.point.how)
    time.sleep(scene.point.seconds)
    assert scene.process.poll() is None, f"ended meanwhile with {scene.process.returncode}: {_tail(scene)}"
    scene.storage.mend()
    scene.waited = time.time() - scene.harmed
    _ends(scene, 0)


def fail_for_good(scene: Scene) -> None:
    """The run ends in one line, all that was saved is there, and the run resumes when the storage is back."""
    assert scene.storage
    scene.storage.fail(scene.point.how)
    output = _ends(scene, 3, 5)
    scene.waited = time.time() - scene.harmed
    scene.message = checks.one_clear_line(scene.process.returncode, output, (3, 5))
    if scene.point.how not in (*STORES, "unmounted"):
        checks.none_lost(scene.before, scene.place.saved())
        scene.process = start(scene.point, scene.place, scene.host, "--resume")
        output = _ends(scene, 2, 3, 5)
        checks.one_clear_line(scene.process.returncode, output, (2, 3, 5))
    scene.storage.mend()
    checks.none_lost(scene.before, scene.place.saved())
    _resume(scene)


def _resume(scene: Scene) -> None:
    scene.taken_up = True
    scene.process = start(scene.point, scene.place, scene.host, "--resume")
    _ends(scene, 0)


def _ends(scene: Scene, *codes: int) -> str:
    output, _ = scene.process.communicate(timeout=240)
    if scene.process.returncode not in codes:
        raise AssertionError(f"exit code {scene.process.returncode}: {_last(output)}\n{output}")
    return output


def _tail(scene: Scene) -> str:
    return _last(scene.process.communicate(timeout=20)[0])


def _last(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no word")


def harm(point: Point) -> Callable[[Scene], None]:
    """What is done to the run of a point."""
    return fail_for_good if point.how == "kept" else HARM[point.kind]


HARM = {
    "worker": kill_workers,
    "all workers": kill_workers,
    "raylet": kill_raylet,
    "driver": kill_driver,
    "storage errors": fail_for_a_while,
    "storage gone": fail_for_good,
    "full disk": fail_for_a_while,
}
