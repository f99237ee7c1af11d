"""Workers that come and go: sizes, save requests, superseded groups, waiting for nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cluster import elastic, ray_private, resources
from cluster.resources import Workers
from depthray.__main__ import main
from depthray.checkpoints import load, select
from depthray.config.sections import Recipe
from depthray.errors import ResourceError, UsageError
from depthray.runs import progress
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.state import Hooks

SMALL = ["data.size=32,64", "data.frames=40", "data.workers=0", "train.epochs=1", "train.precision=fp32"]


def made(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The key-value store of a cluster."""
    store: dict[str, str] = {}
    monkeypatch.setattr(elastic, "put_value", lambda attempt, key, value: store.update({f"{attempt}/{key}": value}))
    monkeypatch.setattr(elastic, "get_value", lambda attempt, key: store.get(f"{attempt}/{key}", ""))
    monkeypatch.setattr(elastic.WorkerWatch, "_poll_requests", lambda self: None)
    return store


def test_only_numbers_of_workers_that_divide_the_global_batch_are_used() -> None:
    assert preflight.worker_counts(made("train.batch_size=12"), least=2, most=6) == [2, 3, 4, 6]
    assert preflight.worker_counts(made("train.batch_size=16", "train.accumulate=2"), least=1, most=8) == [1, 2, 4, 8]


def test_a_number_of_workers_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"train.batch_size=12 .* --workers 8 .* 1, 2, 3, 4, 6 or 12 workers"):
        preflight.worker_counts(made("train.batch_size=12"), least=2, most=8)
    with pytest.raises(UsageError, match=r"train\.accumulate=5; set train\.batch_size=10 or 15$"):
        preflight.worker_counts(made("train.batch_size=12", "train.accumulate=5"), least=1, most=1)
    for least in (0, 5):
        with pytest.raises(UsageError, match=f"--min-workers {least} must be between 1 and --workers 4"):
            preflight.worker_counts(made("train.batch_size=12"), least=least, most=4)


def test_a_save_point_is_made_at_the_step_it_is_requested_for_and_reported(tmp_path: Path) -> None:
    requests, saved = [False, True, False], list[int]()
    hooks = Hooks(
        save_requested=lambda: bool(requests and requests.pop(0)), saved=lambda: saved.append(steps(tmp_path)[-1])
    )
    recipe = made("train.batch_size=4", "train.save_every_steps=0")
    prepare(tmp_path, recipe, resume=False)
    for _ in record(recipe, tmp_path, torch.device("cpu"), hooks=hooks):
        pass
    assert saved == [2]
    assert "saved at step 2" in (tmp_path / progress.FILE).read_text()


def test_a_save_point_requested_at_the_end_of_an_epoch_does_not_wait_for_validation(tmp_path: Path) -> None:
    recipe = made("train.batch_size=4")
    run, then, device = tmp_path / "run", tmp_path / "then", torch.device("cpu")
    last = Frames.open(recipe).steps_per_epoch
    requests = [*[False] * (last - 1), True]

    def copy_run() -> None:
        shutil.copytree(run, then)

    hooks = Hooks(save_requested=lambda: bool(requests and requests.pop(0)), saved=copy_run)
    prepare(run, recipe, resume=False)
    (whole,) = record(recipe, run, device, hooks=hooks)
    assert load.load(select.committed(then / select.FOLDER)[-1]).epoch == 0
    prepare(then, recipe, resume=True)
    (rest,) = record(recipe, then, device)
    assert (rest.number, rest.step) == (whole.number, whole.step) == (1, last)
    assert rest.metrics["train_loss"] == whole.metrics["train_loss"]
    one, two = (load.load(select.committed(each / select.FOLDER)[-1]).weights for each in (run, then))
    assert all(torch.equal(one[key], two[key]) for key in one)


def steps(run: Path) -> list[int]:
    """Of the checkpoints of a run."""
    return [int(path.name.split("step-")[1]) for path in select.committed(run / select.FOLDER)]


def test_a_run_resumed_by_another_number_of_workers_ends_with_the_same_weights(tmp_path: Path) -> None:
    """To the rounding of sums in another order: the global batch and the draws are the same."""
    recipe = ["demo", *SMALL, "train.batch_size=8", "optim.schedule=constant", "train.patience=0"]
    alone, changed = tmp_path / "alone", tmp_path / "changed"
    train_under_torchrun(*recipe, "--out", str(changed))
    assert main(["train", *recipe, "train.epochs=2", "--local", "--out", str(alone)]) == 0
    assert main(["train", *recipe, "train.epochs=2", "--local", "--out", str(changed), "--resume"]) == 0
    left, right = (load.load(select.committed(run / select.FOLDER)[-1]) for run in (alone, changed))
    assert left.step == right.step and left.epoch == right.epoch == 2
    gap = max((left.weights[key] - right.weights[key]).abs().max().item() for key in left.weights)
    assert 0 < gap < 1e-4, "0 would mean that no second process took part"


def train_under_torchrun(*arguments: str) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "depthray", "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_group_that_was_given_up_writes_nothing_more(tmp_path: Path, values: dict[str, str]) -> None:
    recipe = made("train.batch_size=4", "train.save_every_steps=2")
    prepare(tmp_path, recipe, resume=False)
    old = elastic.WorkerWatch("one", str(tmp_path), main=True)
    checks: list[Callable[[], object]] = [lambda: None, lambda: elastic.WorkerWatch("one", str(tmp_path), main=True)]

    def check() -> None:
        checks.pop(0)()
        old.check_group()

    with pytest.raises(elastic.Superseded, match="another group"):
        list(record(recipe, tmp_path, torch.device("cpu"), hooks=Hooks(before_save=check)))
    assert steps(tmp_path) == [2], "the save point at step 4 was the new group's to make"


def test_rank_0_saves_at_a_notice_again_and_again_and_the_others_follow(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_private, "is_node_preempted", lambda: True)
    main, other = (elastic.WorkerWatch("one", "/run", main=main) for main in (True, False))
    assert main.save_requested() and not main.save_requested() and not other.save_requested()
    now[0] += elastic.SAVE_INTERVAL_SECONDS
    assert main.save_requested()


def test_the_save_request_before_a_resize_is_fulfilled_once(values: dict[str, str]) -> None:
    watch = elastic.WorkerWatch("one", "/run", main=True)
    assert not watch.save_requested()
    watch._request = "abc"  # as received by the thread that polls
    assert watch.save_requested() and watch.save_requested(), "until it is on disk"
    watch.confirm_save()
    assert not watch.save_requested()
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("Thread"):
            thread.join(1)
    assert values["one/saved"] == "abc"


SIGTERM_SCRIPT = """
import signal, sys, time
from cluster import elastic
elastic.GRACE_SECONDS = 0.3
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
elastic.delay_sigterm()
watch = elastic.WorkerWatch("one", "/run", main=False)
assert not watch.save_requested()
signal.raise_signal(signal.SIGTERM)
print(watch.save_requested(), watch.save_requested(), flush=True)
time.sleep(10)
"""


def test_sigterm_lets_a_worker_save_once_and_ends_it_a_little_later() -> None:
    done = subprocess.run([sys.executable, "-c", SIGTERM_SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, "True False\n"), done.stderr


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> Any:
    from ray.train.v2.api.config import ScalingConfig

    from cluster import scaling_policy

    monkeypatch.setattr(ray_private, "draining_nodes", lambda: {"going"})
    scaling = ScalingConfig(num_workers=(2, 8), resources_per_worker={"CPU": 2}, elastic_resize_monitor_interval_s=0)
    made = scaling_policy.DivisorPolicy(scaling, sizes=[2, 4, 8], attempt="one")
    monkeypatch.setattr(made, "_maybe_send_resource_request", lambda: None)
    return made


def nodes(**cpus: int) -> dict[str, dict[str, float]]:
    return {name: {"CPU": float(count)} for name, count in cpus.items()}


@pytest.mark.parametrize(
    ("there", "workers"),
    [(nodes(a=8, b=6), 4), (nodes(a=4, b=1), 2), (nodes(a=3), 0), (nodes(a=16), 8), (nodes(a=4, going=12), 2)],
)
def test_the_policy_takes_the_largest_size_that_fits_on_nodes_that_stay(
    policy: Any, there: dict[str, dict[str, float]], workers: int
) -> None:
    assert policy._count_possible_workers(there) == workers


def test_a_healthy_group_is_resized_only_when_it_has_saved(
    policy: Any, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import scaling_policy

    there = nodes(a=4)
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: there)
    group = SimpleNamespace(start_time=0.0, num_workers=2)

    def decision() -> str:
        made = policy.make_decision_for_running_worker_group(group, None)
        return str(getattr(made, "num_workers", "stay"))

    assert decision() == "stay"
    there = nodes(a=4, b=4)
    assert [decision(), decision()] == ["stay", "stay"]
    values["one/saved"] = values["one/save"]
    assert decision() == "4"
    assert decision() == "stay", "a new request"
    monkeypatch.setattr(scaling_policy, "SAVE_SECONDS", 0.0)
    assert decision() == "4", "a group that cannot save does not keep the run small for ever"


def test_an_elastic_group_needs_resources_for_its_minimum_only() -> None:
    assert resources.resources_per_worker({"CPU": 4.0}, Workers(8, 2, sizes=(2, 4, 8))) == {"CPU": 2}
    assert resources.resources_per_worker({"CPU": 16.0}, Workers(8, sizes=(2, 4, 8))) == {"CPU": 2}
    with pytest.raises(ResourceError, match="2 workers x 2 CPUs were requested, the cluster has 3 CPUs"):
        resources.resources_per_worker({"CPU": 3.0}, Workers(8, 2, sizes=(2, 4, 8)))


class Group:
    """A placement group that is ready after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.removed = looks, False

    def wait(self, seconds: float) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A cluster of no CPUs; what its placement group and its autoscaler do can be set."""
    import ray
    import ray.util

    clock = iter(range(0, 100_000, 2))
    state: dict[str, Any] = {"group": Group(5), "starting": True}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {})
    monkeypatch.setattr(ray.util, "placement_group", lambda bundles: state.update(bundles=bundles) or state["group"])
    monkeypatch.setattr(ray.util, "remove_placement_group", lambda group: setattr(group, "removed", True))
    monkeypatch.setattr(ray_private, "has_pending_nodes", lambda: state["starting"])
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    return state


def test_nodes_are_requested_of_a_cluster_without_workers_and_waited_for(empty: dict[str, Any]) -> None:
    logged: list[str] = []
    resources.wait_for_resources(Workers(2, 4, 1.0), logged.append, minutes=15)
    assert empty["bundles"] == [{"CPU": 4.0, "GPU": 1.0}] * 2 and empty["group"].removed
    assert logged == ["waiting      for nodes with 4 CPUs and 1 GPUs for each of 2 workers"]


@pytest.mark.parametrize(
    ("starting", "workers", "minutes", "message"),
    [
        (False, Workers(2, 4), 15.0, "2 workers x 4 CPUs were requested, the cluster has 0 CPUs, and starts no nodes"),
        (True, Workers(2, 4), 1.0, "the cluster has 0 CPUs; no more were added in 1 minutes"),
        (True, Workers(2), 15.0, "--cpus-per-worker must be given"),
        (True, Workers(2, 4), 0.0, "2 workers x 4 CPUs were requested, the cluster has 0 CPUs$"),
    ],
)
def test_nodes_that_do_not_join_are_one_clear_line(
    empty: dict[str, Any], starting: bool, workers: Workers, minutes: float, message: str
) -> None:
    empty.update(starting=starting, group=Group(1000))
    with pytest.raises(ResourceError, match=message):
        resources.wait_for_resources(workers, lambda _: None, minutes=minutes)


def test_signals_are_not_handled_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elastic.delay_sigterm)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before and os.getpid()


@pytest.mark.parametrize(("gpus", "hidden"), [(1.0, {}), (0.0, {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}})])
def test_workers_of_ray_wait_as_long_as_asked_and_see_the_gpus_they_reserved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: float, hidden: dict[str, Any]
) -> None:
    import ray

    from cluster import scaling_policy, workers

    given: dict[str, Any] = {}

    class Recorded:
        def __init__(self, work: Callable[..., None], **options: Any) -> None:
            given.update(options)

    monkeypatch.setattr(scaling_policy, "ElasticTrainer", Recorded)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setattr(workers, "_fit", lambda *_: None)
    monkeypatch.setenv("AWS_REGION", "here")
    workers.fit_on_workers(made(), tmp_path, Workers(2, 1, gpus=gpus, timeout_minutes=7.5))
    assert given["torch_config"].timeout_s == 450
    assert given["scaling_config"].use_gpu == bool(gpus)
    assert given["run_config"].worker_runtime_env == hidden
    assert given["train_loop_config"]["environment"]["AWS_REGION"] == "here"


def test_a_mistake_ends_the_run_and_a_lost_worker_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train import FailureConfig, WorkerGroupError

    from cluster import scaling_policy
    from cluster.ray_private import FailureDecision

    reported: list[str] = []
    monkeypatch.setattr(scaling_policy, "reported_error", lambda attempt: attempt if attempt in reported else None)
    policy = scaling_policy.MistakePolicy(FailureConfig(max_failures=3), attempt="first")
    lost = WorkerGroupError("lost", {0: RuntimeError("gone")})
    assert policy.make_decision(lost) is FailureDecision.RETRY
    reported.append("another")
    assert policy.make_decision(lost) is FailureDecision.RETRY
    reported.append("first")
    assert policy.make_decision(lost) is FailureDecision.RAISE
