"""Lose nodes of a cluster of several hosts under training, a search and a service, and say what that costs.

    python -m chaos.training.node_kills [--only train elastic notice tune serve wake]

Hosts are network namespaces (hosts.py, needs root): a head and two workers. A node is lost by SIGKILL of all its
processes. Each part prints rows of what was measured; exit code 1 if one is not as it must be:

train    two workers, a node lost amid an epoch and started again: the weights of the undisturbed run, to 1e-6
elastic  --min-workers 1: continues with one worker, then with two again; scores of the undisturbed run, to a tolerance
notice   the cluster is notified 20 s before a node goes: saved before it does
tune     a search of one-worker trials: complete at the end, no trial that had ended run again
wake     a cluster without workers whose autoscaler starts them
serve    two replicas under load, one lost: requests that failed, seconds until both answer again
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
from chaos.training.node_rows import (
    drain,
    ended,
    failed,
    jpegs,
    last_step,
    like_undisturbed,
    recovery,
    resumed,
    saved_as_asked,
    say,
    submit,
    trained_again,
    undisturbed_trial,
    until,
)
from depthray.runs.locate import summary

WORDS = [
    "demo",
    "data.size=96,128",
    "data.frames=400",
    "train.batch_size=8",
    "train.save_every_steps=10",
    "train.precision=fp32",
    "train.log_seconds=0.5",
]
BATCHES = 45  # an epoch
TOLERANCE = 0.02  # of the score, after steps on another number of workers


def straight(folder: Path, epochs: int) -> Path:
    """The same training undisturbed and without Ray, two processes."""
    run = folder / f"straight-{epochs}"
    if not run.exists():
        words = [*WORDS, f"train.epochs={epochs}"]
        process = kills.start(run, words=words, under=(*kills.TORCHRUN, "2"))
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    return run


def begin(cluster: hosts.Cluster, run: Path, epochs: int, *flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Submit a training on both nodes, and wait until it is amid its second epoch."""
    log = run.with_suffix(".log")
    words = ["train", *WORDS, f"train.epochs={epochs}", "--workers", "2", "--cpus-per-worker", "1", "--out", str(run)]
    process = submit(cluster, log, *words, *flags)
    began = time.time()
    until(lambda: last_step(run) >= 1, process, log)
    say(run.name, "seconds from the command to the first step", f"{time.time() - began:.1f}")
    until(lambda: last_step(run) % BATCHES > 15 and last_step(run) > BATCHES, process, log)
    return process, log


def lose(cluster: hosts.Cluster, number: int) -> float:
    """Switch a host off."""
    cluster.nodes[number].kill()
    return time.time()


def train(cluster: hosts.Cluster, folder: Path) -> None:
    """A group of a fixed size waits for its node."""
    run, epochs = folder / "train", 6
    process, log = begin(cluster, run, epochs)
    since = lose(cluster, 2)
    time.sleep(5)
    cluster.start(cluster.nodes[2])
    say("train", "seconds until the node was back", f"{time.time() - since:.1f}")
    until(lambda: trained_again(run, since) is not None, process, log)
    recovery("train", "node lost", run, since, workers=2, most=10 + 15)
    ended(process, log)
    gap = kills.distance(run, straight(folder, epochs))
    say("train", "difference of the final weights", f"{gap:.1e}", good=gap <= 1e-6)


def elastic(cluster: hosts.Cluster, folder: Path) -> None:
    """A group that may shrink continues without its node, and uses it again once it is back."""
    run, epochs = folder / "elastic", 16
    process, log = begin(cluster, run, epochs, "--min-workers", "1")
    since = lose(cluster, 2)
    until(lambda: trained_again(run, since) is not None, process, log)
    recovery("elastic", "node lost", run, since, workers=1, most=10 + 15)
    time.sleep(5)
    cluster.start(cluster.nodes[2])
    back = time.time()
    until(lambda: trained_again(run, back) is not None, process, log)
    recovery("elastic", "node back", run, back, workers=2, most=1)
    ended(process, log)
    resumption = resumed(run, since)
    assert resumption  # it has trained again
    runs, lost_in = (run, straight(folder, epochs)), resumption["step"] // BATCHES + 1
    like_undisturbed("elastic", "the epoch of the loss", "train_loss", runs, lost_in, tolerance=1e-3)
    like_undisturbed("elastic", "the last epoch", "train_loss", runs, epochs, tolerance=0.05)
    best = [summary(each)[1]["abs_rel"] for each in runs]
    gap = abs(best[0] - best[1])
    say("elastic", f"best abs_rel {best[0]:.4f}, undisturbed {best[1]:.4f}", f"{gap:.1e}", good=gap < TOLERANCE)


def notice(cluster: hosts.Cluster, folder: Path) -> None:
    """A node that is going to be taken away, as spot machines are."""
    run, epochs = folder / "notice", 14
    process, log = begin(cluster, run, epochs, "--min-workers", "1")
    told = time.time()
    drain(cluster, cluster.nodes[2], seconds=20)
    until(lambda: bool(saved_as_asked(run, told)), process, log)
    say("notice", "seconds from the notice to the save point", f"{saved_as_asked(run, told)[0] - told:.1f}")
    time.sleep(max(0.0, told + 20 - time.time()))
    since = lose(cluster, 2)
    until(lambda: trained_again(run, told) is not None, process, log)
    recovery("notice", "node gone", run, told, at=since, workers=1, most=10 + 15)
    ended(process, log)
    cluster.start(cluster.nodes[2])


def tune(cluster: hosts.Cluster, folder: Path) -> None:
    """A search whose trials run on both nodes."""
    from tuning.records import ENDED, read_trials

    out, log = folder / "search", folder / "search.log"
    space = folder / "space.yaml"
    space.write_text("optim.lr: {loguniform: [1e-3, 1e-2]}\n")
    words = ["tune", *WORDS, "data.size=64,64", "train.epochs=4", "--space", str(space), "--trials", "6", "--top", "1"]
    words += ["--repeats", "1", "--cpus-per-worker", "1", "--scheduler", "none", "--out", str(out)]
    began = time.time()
    process = submit(cluster, log, *words)

    def finished() -> dict[str, Any]:
        return (
            {t.name: (t.state, t.ended, t.attempts) for t in read_trials(out) if t.state in ENDED}
            if out.exists()
            else {}
        )

    until(lambda: len(finished()) >= 2, process, log)
    time.sleep(1.0)
    before, since = finished(), lose(cluster, 2)
    running = [t.name for t in read_trials(out) if t.state == "running"]
    until(lambda: len(finished()) > len(before), process, log)
    say("tune", f"seconds from the loss to the next trial's end ({len(running)} ran)", f"{time.time() - since:.1f}")
    cluster.start(cluster.nodes[2])
    ended(process, log)
    after = finished()
    states = [state for state, *_ in after.values()]
    say(
        "tune",
        f"trials done of {len(read_trials(out))}",
        f"{states.count('done')}",
        good=set(states) == {"done"} and len(states) == len(read_trials(out)),
    )
    again = [name for name in before if after[name] != before[name]]
    say("tune", f"of {len(before)} that had ended, run again", f"{len(again)}", good=not again)
    tries = max(attempts for _, _, attempts in after.values())
    undisturbed_trial(folder, next(name for name, (*_, attempts) in after.items() if attempts == tries))
    say("tune", "attempts at a trial, at most", f"{tries}")
    say("tune", "seconds in all", f"{time.time() - began:.0f}")


def serve(cluster: hosts.Cluster, folder: Path) -> None:
    """Two replicas of a model, one a node; the proxy is on the head."""
    run = folder / "served-run"
    kills.finish(kills.start(run, "--local", words=[*WORDS, "data.frames=40", "data.size=64,64", "train.epochs=1"]))
    jpegs(folder / "jpegs")
    log = folder / "serve.log"
    words = ["serve", str(run), "--address", cluster.address, "--host", "0.0.0.0", "--allow-anonymous"]
    words += ["--store", str(folder / "store"), "model_replicas.min=2", "model_replicas.max=2"]
    words += [
        "model_replicas.cpus=0.6",
        "ingress_replicas.min=2",
        "ingress_replicas.max=2",
        "ingress_replicas.cpus=0.3",
    ]
    command = cluster.on_head([sys.executable, "-m", "depthray", *words])
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=ROOT, env=cluster.environment(), stdout=file, stderr=file)
    try:
        until(lambda: "page   " in log.read_text(), server, log)
        _lose_under_load(cluster, folder, f"http://{cluster.nodes[0].address}:8000/v1/depth")
    finally:
        server.terminate()
        server.wait(60)


def _lose_under_load(cluster: hosts.Cluster, folder: Path, url: str) -> None:
    seconds, rate = 60.0, 6.0
    load = [
        sys.executable,
        "benchmarks/load.py",
        url,
        str(folder / "jpegs"),
        "--rate",
        str(rate),
        "--seconds",
        str(seconds),
    ]
    with subprocess.Popen(load, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        began = time.time()
        time.sleep(15)
        lost_at = lose(cluster, 2) - began
        restart = threading.Timer(15, cluster.start, args=(cluster.nodes[2],))
        restart.start()
        told = json.loads(driver.communicate(timeout=seconds + 60)[0])
        restart.join()
    answers = [(status, took, at) for status, took, _, at in told["answers"]]
    bad = [(status, took, at) for status, took, at in answers if status not in (200, 429)]
    refused = sum(status == 429 for status, *_ in answers)
    say("serve", f"requests, {rate:g} a second, one node lost after {lost_at:.0f} s", f"{len(answers)}")
    say("serve", f"failed ({sorted({status for status, *_ in bad})})", f"{len(bad)}", good=len(bad) <= rate * 15)
    say("serve", "refused with 429", f"{refused}")
    last = max((at - lost_at for *_, at in bad), default=0.0)
    say("serve", "seconds from the loss to the last failed answer", f"{last:.1f}")
    slow = max((took for status, took, at in answers if status == 200), default=0.0)
    say("serve", "slowest answer, s", f"{slow:.1f}")


def wake(folder: Path) -> None:
    """A cluster that stands at no workers is asked for two."""
    with hosts.cluster(workers=0, grows=True) as cluster:
        folder.mkdir()
        run, log = folder / "wake", folder / "wake.log"
        words = ["train", *WORDS, "train.epochs=6", "--workers", "2", "--cpus-per-worker", "1", "--out", str(run)]
        began = time.time()
        process = submit(cluster, log, *words)
        until(lambda: "waiting      for nodes" in log.read_text(), process, log)
        say("wake", "seconds until it says that it waits for nodes", f"{time.time() - began:.1f}")
        until(lambda: last_step(run) >= 1, process, log)
        say("wake", "seconds from the command to the first step", f"{time.time() - began:.1f}")
        until(lambda: cluster.alive() == 3, process, log, seconds=30)  # the dashboard tells it a little later
        say("wake", "nodes", "3")
        ended(process, log)
        since = time.time()
        while cluster.alive() != 1 and time.time() < since + 120:  # 0: the dashboard did not answer
            time.sleep(0.5)
        took = time.time() - since
        say("wake", "seconds from the end until the cluster is at 0 again", f"{took:.0f}", good=took < 120)
        gap = kills.distance(run, straight(folder, 6))
        say("wake", "difference of the final weights", f"{gap:.1e}", good=gap <= 1e-6)


PARTS = {"train": train, "elastic": elastic, "notice": notice, "tune": tune, "serve": serve}


def tried(part: str, cluster: hosts.Cluster, folder: Path) -> None:
    """Run a part on the whole cluster; the other parts are worth having where it fails."""
    while cluster.alive() < len(cluster.nodes):
        time.sleep(0.5)
    try:
        PARTS[part](cluster, folder)
    except Exception as error:
        say(part, f"did not come to its end: {error}", "", good=False)


def main() -> int:
    """Run the parts asked for, each on the same cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "wake"], default=[*PARTS, "wake"])
    args = parser.parse_args()
    if fault := hosts.missing():
        parser.error(fault)
    folder = hosts.FOLDER / "work"
    if parts := [part for part in args.only if part in PARTS]:
        with hosts.cluster(workers=2) as cluster:
            folder.mkdir()
            for part in parts:
                tried(part, cluster, folder)
    if "wake" in args.only:
        wake(folder)
    print(f"{len(failed)} rows are not as they must be" if failed else "all as it must be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
