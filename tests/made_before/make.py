"""Make the runs, searches and frames of v0.1.0 again, with depthray 0.1.0, and record what it says of them.

    git worktree add before 51cbd29
    pip install --no-deps --target installed ./before
    PYTHONPATH=$PWD/installed:$PWD/tests python tests/made_before/make.py TARGET

It works in PLACE, which is the path that the recipes then name, and not in a checkout, whose code would come first.
It takes about 5 minutes on 2 CPU cores.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import observe

import depthray

VERSION = "0.1.0"
PLACE = Path("/tmp/made-before")
SMALL = ["data.size=32,64", "data.fit=exact", "train.batch_size=4", "eval.batch_size=4", "train.precision=fp32"]
# Plain SGD keeps no state, so a checkpoint is hardly more than its weights.
PLAIN = ["optim.name=sgd", "optim.momentum=0", "optim.average=none", "train.keep_best=1"]
MASKS = ["masknet", "curriculum.sizes=[]", *SMALL]
SEARCHED = [*MASKS, *PLAIN, "data.source=synthetic", "data.frames=20", "optim.schedule=constant", "loss.mask_bce=0"]
AGAIN = ("tensorboard", "ray", "report.*", "sheet-*.jpg", "study.json", "trials.csv", "best.yaml")
TIMES = ("time", "started", "ended")
EARLIER = 365 * 86400.0  # what was killed must look it whatever the clock of this machine says


def main() -> None:
    """Make everything in PLACE, record, and copy it to the folder that is asked for."""
    target = Path(sys.argv[1])
    if depthray.__version__ != VERSION:
        sys.exit(f"this is depthray {depthray.__version__}, and {VERSION} is wanted")
    PLACE.mkdir()
    make()
    strip()
    expected = record()
    shutil.copytree(PLACE, target)
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(PLACE)


def make() -> None:
    """The frames, the runs, what is served, and the searches."""
    rooms, runs = str(PLACE / "rooms"), PLACE / "runs"
    depthray_("data", "render", rooms, "--frames", "20", "--size", "32", "64", "--layout", "shards")
    local = ["--data", rooms, "--local", "--out"]
    tiny = ["dpt-vits", "model.size=tiny", *SMALL, *PLAIN, "optim.lr=0.03", "optim.encoder_lr=1", "train.epochs=3"]
    depthray_("train", *tiny, *local, str(runs / "finished"))
    depthray_("serve", "promote", str(runs / "finished"), "--store", str(PLACE / "served"))
    diverging = [*MASKS, *PLAIN, "optim.lr=1e30", "optim.clip_norm=0", "optim.schedule=constant"]
    depthray_("train", *diverging, "train.max_bad_steps=2", *local, str(runs / "diverged"), code=4)
    averaged = [*MASKS, "train.epochs=3", "train.keep_best=1", "train.log_seconds=0.001"]
    stop_in_the_middle(["train", *averaged, *local, str(runs / "stopped")], runs / "stopped")
    search(PLACE / "searches")


def search(folder: Path) -> None:
    """A search that ended, with a trial that failed, and one whose driver was killed amid its third trial."""
    folder.mkdir()
    space = PLACE / "space.yaml"
    space.write_text("optim.lr: {choice: [0.3, 1.0, 1.0e+30]}\n", encoding="utf-8")
    flags = ["--concurrent", "1", "--cpus-per-worker", "1", "--space", str(space)]
    ended = [*SEARCHED, "train.epochs=4", "train.max_bad_steps=2", "optim.clip_norm=0", "--search", "grid"]
    depthray_("tune", *ended, *flags, "--top", "1", "--repeats", "1", "--out", str(folder / "ended"))
    space.write_text("optim.lr: {loguniform: [0.1, 1.0]}\nloss.mask_dice: {uniform: [0.5, 1]}\n", encoding="utf-8")
    killed = [*SEARCHED, "train.epochs=6", "--scheduler", "none", "--trials", "3", "--repeats", "0"]
    kill_amid(["tune", *killed, *flags, "--out", str(folder / "killed")], folder / "killed" / "trials" / "0001")
    space.unlink()


def depthray_(*words: str, code: int = 0) -> str:
    """Run a command of depthray to its end; what it printed."""
    print("depthray", *words, flush=True)
    done = subprocess.run(line(words), capture_output=True, text=True, env=environment(), cwd=PLACE)
    if done.returncode != code:
        sys.exit(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def line(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "depthray", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def stop_in_the_middle(words: Sequence[str], run: Path) -> None:
    """Ask a run to stop by the file STOP when it is in its second epoch."""
    process = subprocess.Popen(line(words), env=environment(), cwd=PLACE, stdout=subprocess.DEVNULL)
    wait(lambda: any(record.get("step") == 5 for record in records(run)), process)
    (run / "STOP").touch()
    if process.wait() != 130:
        sys.exit("the run was not stopped in time; try again")


def kill_amid(words: Sequence[str], trial: Path) -> None:
    """Kill a search when a trial has saved its third epoch."""
    process = subprocess.Popen(line(words), env=environment(), cwd=PLACE, stdout=subprocess.DEVNULL)
    wait(lambda: any(trial.glob("checkpoints/epoch-0003-*/manifest.json")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(5)  # its cluster ends with it


def wait(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not reached():
        if process.poll() is not None:
            sys.exit("it ended too early; try again")
        time.sleep(0.005)


def records(run: Path) -> list[dict[str, Any]]:
    path = run / "progress.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(each) for each in text.splitlines(keepends=True) if each.endswith("\n")]


def strip() -> None:
    """Keep what is needed to resume, evaluate and report: no output that is made again, no address of a machine."""
    for pattern in AGAIN:
        for path in list(PLACE.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for run in [*PLACE.glob("runs/*"), *PLACE.glob("searches/*/trials/*")]:
        for spare in sorted((run / "checkpoints").glob("*"))[:-1]:
            shutil.rmtree(spare)
    strip_trials()
    for path in PLACE.glob("searches/*/search.json"):
        asked = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(earlier(asked), indent=1), encoding="utf-8")
    for path in PLACE.rglob("progress.jsonl"):
        lines = "".join(json.dumps(earlier(each)) + "\n" for each in records(path.parent))
        path.write_text(lines, encoding="utf-8")


def strip_trials() -> None:
    """Move the times of trials back, and keep only checkpoints of unfinished trials and of one finished trial."""
    for path in PLACE.glob("searches/*/trials/*/trial.json"):
        trial = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(earlier({**trial, "node": "127.0.0.1"}), indent=1), encoding="utf-8")
        best = trial["name"] == "0000" and path.parents[2].name == "ended"
        if trial["state"] != "running" and not best:
            shutil.rmtree(path.parent / "checkpoints", ignore_errors=True)


def earlier(content: dict[str, Any]) -> dict[str, Any]:
    """A record with its times moved back, as far as it has any."""
    return {**content, **{key: content[key] - EARLIER for key in TIMES if content.get(key)}}


def record() -> dict[str, object]:
    """What this version says of them, and what it makes of copies."""
    copies, ended, killed = (PLACE.parent / "made-before-copies", "searches/ended", "searches/killed")
    copies.mkdir()
    data, finished = ["--data", str(PLACE / "rooms")], PLACE / "runs/finished"
    expected: dict[str, object] = {
        "processor": observe.processor(),
        "runs": observe.listed(command, PLACE / "runs"),
        "searches": observe.listed(command, PLACE / "searches"),
        "scores": observe.scores(command, finished, copies / "scores", *data),
        "mask_scores": observe.scores(command, PLACE / ended / "trials/0000", copies / "mask-scores"),
        "predicted": observe.predicted(command, finished, copies / "predicted"),
        "resumed": observe.resumed(command, observe.copied(PLACE / "runs/stopped", copies / "stopped"), *data),
        "ended": observe.report(command, observe.copied(PLACE / ended, copies / "ended")),
        "killed": observe.report(command, observe.copied(PLACE / killed, copies / "killed")),
    }
    command(["tune", "--resume", str(copies / "killed")])
    expected["killed_resumed"] = {
        "trials": observe.trials(copies / "killed"),
        "weights": observe.weights(copies / "killed/trials/0001"),
    }
    shutil.rmtree(copies)
    return expected


def command(words: Sequence[str]) -> str:
    return depthray_(*words)


if __name__ == "__main__":
    main()
