"""Lose nodes of a cluster of several hosts under training, a search, predictions and a service, and measure the cost.

    python -m chaos.training.node_kills [--only train elastic notice tune predict serve autoscaling]

Hosts are network namespaces (hosts.py, needs root): a head and two workers. A node is lost by SIGKILL of all its
processes. Each part prints rows of what was measured; the exit code is 1 if one is wrong:

train        two workers, a node lost amid an epoch and restarted: the weights of the undisturbed run, to 1e-6
elastic      --min-workers 1: continues with one worker, then two again; the undisturbed run's scores, to a tolerance
notice       the cluster is notified 20 s before a node is removed: saved before that
tune         a search of one-worker trials: complete at the end, no trial that had ended run again
predict      2,000 frames, a node lost amid them: each frame once, to the byte what one process without Ray writes
serve        two replicas under load, one lost: requests that failed, seconds until both answer again
autoscaling  a cluster without workers whose autoscaler starts them
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from chaos import ROOT
from chaos.training import hosts, kills
from chaos.training.node_predict import predict
from chaos.training.node_rows import (
    compare_figure,
    compare_trial,
    drain,
    failed,
    first_resumption,
    kill_node,
    last_step,
    next_step_time,
    print_recovery,
    print_row,
    render_jpegs,
    requested_saves,
    submit,
    wait_for_success,
    wait_until,
)
from depthray.runs.locate import summary

OVERRIDES = [
    "demo",
    "data.size=96,128",
    "data.frames=400",
    "train.batch_size=8",
    "train.save_every_steps=10",
    "train.precision=fp32",
    "train.log_seconds=0.5",
]
TWO_WORKERS = ["--workers", "2", "--cpus-per-worker", "1"]
BATCHES = 45  # an epoch
TOLERANCE = 0.02  # of the score, after steps on another number of workers


def train_undisturbed(folder: Path, epochs: int) -> Path:
    """The same training undisturbed and without Ray, two processes."""
    run = folder / f"undisturbed-{epochs}"
    if not run.exists():
        overrides = [*OVERRIDES, f"train.epochs={epochs}"]
        process = kills.start(run, overrides=overrides, launcher=(*kills.TORCHRUN, "2"))
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    return run


def submit_training(
    cluster: hosts.Cluster, run: Path, epochs: int, *flags: str
) -> tuple[subprocess.Popen[bytes], Path]:
    """Submit a training on both nodes, and wait until it is amid its second epoch."""
    log = run.with_suffix(".log")
    arguments = ["train", *OVERRIDES, f"train.epochs={epochs}", *TWO_WORKERS, "--out", str(run)]
    process = submit(cluster, log, *arguments, *flags)
    began = time.time()
    wait_until(lambda: last_step(run) >= 1, process, log)
    print_row(run.name, "seconds from the command to the first step", f"{time.time() - began:.1f}")
    # So far into the epoch that there are save points in it.
    wait_until(lambda: last_step(run) % BATCHES > 15 and last_step(run) > BATCHES, process, log)
    return process, log


def train(cluster: hosts.Cluster, folder: Path) -> None:
    """A group of a fixed size waits for its node."""
    run, epochs = folder / "train", 6
    process, log = submit_training(cluster, run, epochs)
    since = kill_node(cluster, 2)
    time.sleep(5)
    cluster.start(cluster.nodes[2])
    print_row("train", "seconds until the node was back", f"{time.time() - since:.1f}")
    wait_until(lambda: next_step_time(run, since) is not None, process, log)
    print_recovery("train", "node lost", run, since, workers=2, most=10 + 15)
    wait_for_success(process, log)
    gap = kills.distance(run, train_undisturbed(folder, epochs))
    print_row("train", "difference of the final weights", f"{gap:.1e}", good=gap <= 1e-6)


def elastic(cluster: hosts.Cluster, folder: Path) -> None:
    """A group that may shrink continues without its node, and uses it again once it is back."""
    run, epochs = folder / "elastic", 16
    process, log = submit_training(cluster, run, epochs, "--min-workers", "1")
    since = kill_node(cluster, 2)
    wait_until(lambda: next_step_time(run, since) is not None, process, log)
    print_recovery("elastic", "node lost", run, since, workers=1, most=10 + 15)
    time.sleep(5)
    cluster.start(cluster.nodes[2])
    back = time.time()
    wait_until(lambda: next_step_time(run, back) is not None, process, log)
    print_recovery("elastic", "node back", run, back, workers=2, most=1)
    wait_for_success(process, log)
    resumption = first_resumption(run, since)
    assert resumption  # it has trained again
    runs, lost_in = (run, train_undisturbed(folder, epochs)), resumption["step"] // BATCHES + 1
    compare_figure("elastic", "the epoch of the loss", "train_loss", runs, lost_in, tolerance=1e-3)
    compare_figure("elastic", "the last epoch", "train_loss", runs, epochs, tolerance=0.05)
    best = [summary(each)[1]["abs_rel"] for each in runs]
    gap = abs(best[0] - best[1])
    print_row("elastic", f"best abs_rel {best[0]:.4f}, undisturbed {best[1]:.4f}", f"{gap:.1e}", good=gap < TOLERANCE)


def notice(cluster: hosts.Cluster, folder: Path) -> None:
    """A node that will be removed, as spot machines are."""
    run, epochs = folder / "notice", 14
    process, log = submit_training(cluster, run, epochs, "--min-workers", "1")
    notified = time.time()
    drain(cluster, cluster.nodes[2], seconds=20)
    wait_until(lambda: bool(requested_saves(run, notified)), process, log)
    print_row(
        "notice", "seconds from the notice to the save point", f"{requested_saves(run, notified)[0] - notified:.1f}"
    )
    time.sleep(max(0.0, notified + 20 - time.time()))  # the node is killed when it was announced
    since = kill_node(cluster, 2)
    wait_until(lambda: next_step_time(run, notified) is not None, process, log)
    print_recovery("notice", "node removed", run, notified, at=since, workers=1, most=10 + 15)
    wait_for_success(process, log)
    cluster.start(cluster.nodes[2])


def tune(cluster: hosts.Cluster, folder: Path) -> None:
    """A search whose trials run on both nodes."""
    from tuning.records import ENDED, read_trials

    out, log = folder / "search", folder / "search.log"
    space = folder / "space.yaml"
    space.write_text("optim.lr: {loguniform: [1e-3, 1e-2]}\n")
    arguments = ["tune", *OVERRIDES, "data.size=64,64", "train.epochs=4", "--space", str(space), "--out", str(out)]
    arguments += ["--trials", "6", "--top", "1", "--repeats", "1", "--cpus-per-worker", "1", "--scheduler", "none"]
    began = time.time()
    process = submit(cluster, log, *arguments)

    def finished() -> dict[str, Any]:
        return (
            {t.name: (t.state, t.ended, t.attempts) for t in read_trials(out) if t.state in ENDED}
            if out.exists()
            else {}
        )

    wait_until(lambda: len(finished()) >= 2, process, log)
    time.sleep(1.0)
    before, since = finished(), kill_node(cluster, 2)
    running = [t.name for t in read_trials(out) if t.state == "running"]
    wait_until(lambda: len(finished()) > len(before), process, log)
    print_row(
        "tune", f"seconds from the loss to the next trial's end ({len(running)} ran)", f"{time.time() - since:.1f}"
    )
    cluster.start(cluster.nodes[2])
    wait_for_success(process, log)
    after = finished()
    states = [state for state, *_ in after.values()]
    print_row(
        "tune",
        f"trials done of {len(read_trials(out))}",
        f"{states.count('done')}",
        good=set(states) == {"done"} and len(states) == len(read_trials(out)),
    )
    repeated = [name for name in before if after[name] != before[name]]
    print_row("tune", f"of {len(before)} that had ended, run again", f"{len(repeated)}", good=not repeated)
    most = max(attempts for _, _, attempts in after.values())
    compare_trial(folder, next(name for name, (*_, attempts) in after.items() if attempts == most))
    print_row("tune", "attempts at a trial, at most", f"{most}")
    print_row("tune", "seconds in total", f"{time.time() - began:.0f}")


def serve(cluster: hosts.Cluster, folder: Path) -> None:
    """Two replicas of a model, one a node; the proxy is on the head."""
    run = folder / "served-run"
    overrides = [*OVERRIDES, "data.frames=40", "data.size=64,64", "train.epochs=1"]
    kills.finish(kills.start(run, "--local", overrides=overrides))
    render_jpegs(folder / "jpegs")
    log = folder / "serve.log"
    # Open and without keys, as the requests come from outside of the head's network namespace.
    arguments = ["serve", str(run), "--address", cluster.address, "--host", "0.0.0.0", "--allow-anonymous"]
    arguments += ["--store", str(folder / "store"), "model_replicas.min=2", "model_replicas.max=2"]
    arguments += ["ingress_replicas.min=2", "ingress_replicas.max=2"]
    # Together below one CPU: each node has one of both.
    arguments += ["model_replicas.cpus=0.6", "ingress_replicas.cpus=0.3"]
    command = cluster.on_head([sys.executable, "-m", "depthray", *arguments])
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=ROOT, env=cluster.environment(), stdout=file, stderr=file)
    try:
        wait_until(lambda: "page   " in log.read_text(), server, log)
        _kill_node_under_load(cluster, folder, f"http://{cluster.nodes[0].address}:8000/v1/depth")
    finally:
        server.terminate()
        server.wait(60)


def _kill_node_under_load(cluster: hosts.Cluster, folder: Path, url: str) -> None:
    seconds, rate = 60.0, 6.0
    load = [sys.executable, "benchmarks/load.py", url, str(folder / "jpegs")]
    load += ["--rate", str(rate), "--seconds", str(seconds)]
    with subprocess.Popen(load, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        began = time.time()
        time.sleep(15)
        lost_at = kill_node(cluster, 2) - began
        restart = threading.Timer(15, cluster.start, args=(cluster.nodes[2],))
        restart.start()
        report = json.loads(driver.communicate(timeout=seconds + 60)[0])
        restart.join()
    answers = [(status, took, at) for status, took, _, at in report["answers"]]
    bad = [(status, took, at) for status, took, at in answers if status not in (200, 429)]
    refused = sum(status == 429 for status, *_ in answers)
    print_row("serve", f"requests, {rate:g} a second, one node lost after {lost_at:.0f} s", f"{len(answers)}")
    print_row("serve", f"failed ({sorted({status for status, *_ in bad})})", f"{len(bad)}", good=len(bad) <= rate * 15)
    print_row("serve", "refused with 429", f"{refused}")
    last = max((at - lost_at for *_, at in bad), default=0.0)
    print_row("serve", "seconds from the loss to the last failed answer", f"{last:.1f}")
    slow = max((took for status, took, at in answers if status == 200), default=0.0)
    print_row("serve", "slowest answer, s", f"{slow:.1f}")


def autoscaling(folder: Path) -> None:
    """A run requests two workers of a cluster that has none yet."""
    with hosts.cluster(workers=0, autoscales=True) as cluster:
        folder.mkdir()
        run, log = folder / "autoscaling", folder / "autoscaling.log"
        arguments = ["train", *OVERRIDES, "train.epochs=6", *TWO_WORKERS, "--out", str(run)]
        began = time.time()
        process = submit(cluster, log, *arguments)
        wait_until(lambda: "waiting      for nodes" in log.read_text(), process, log)
        print_row("autoscaling", "seconds until it logs that it waits for nodes", f"{time.time() - began:.1f}")
        wait_until(lambda: last_step(run) >= 1, process, log)
        print_row("autoscaling", "seconds from the command to the first step", f"{time.time() - began:.1f}")
        wait_until(lambda: cluster.alive() == 3, process, log, seconds=30)  # the dashboard shows it a little later
        print_row("autoscaling", "nodes", "3")
        wait_for_success(process, log)
        since = time.time()
        while cluster.alive() != 1 and time.time() < since + 120:  # 0: the dashboard did not answer
            time.sleep(0.5)
        took = time.time() - since
        print_row("autoscaling", "seconds from the end until it has no workers again", f"{took:.0f}", good=took < 120)
        gap = kills.distance(run, train_undisturbed(folder, 6))
        print_row("autoscaling", "difference of the final weights", f"{gap:.1e}", good=gap <= 1e-6)


PARTS = {"train": train, "elastic": elastic, "notice": notice, "tune": tune, "predict": predict, "serve": serve}


def run_part(part: str, cluster: hosts.Cluster, folder: Path) -> None:
    """Run a part on the whole cluster; where it fails, the other parts still run."""
    while cluster.alive() < len(cluster.nodes):  # the part before may have left a node that is starting
        time.sleep(0.5)
    try:
        PARTS[part](cluster, folder)
    except Exception as error:
        print_row(part, f"ended early: {error}", "", good=False)


def main() -> int:
    """Run the requested parts, those that share a cluster on the same one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "autoscaling"], default=[*PARTS, "autoscaling"])
    args = parser.parse_args()
    if fault := hosts.unavailable():
        parser.error(fault)
    folder = hosts.FOLDER / "work"
    if parts := [part for part in args.only if part in PARTS]:
        with hosts.cluster(workers=2) as cluster:
            folder.mkdir()
            for part in parts:
                run_part(part, cluster, folder)
    if "autoscaling" in args.only:
        autoscaling(folder)
    print(f"{len(failed)} rows are wrong" if failed else "all rows are right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
