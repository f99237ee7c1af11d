"""What a search costs besides its trainings: wall time of eight one-worker trials, two at a time.

    python benchmarks/search.py [--epochs 12] [--rounds 1]

The same eight trainings three times over, each on one thread: `depthray train --local` in eight processes, two at a
time, without Ray; `depthray tune` of eight points, two at a time; and the usual pattern, a TorchTrainer of one worker
inside each trial. Each side is measured from the start of its first process to the end of its last; reports, repeats
and schedulers are left out. The scores of the first two sides must be equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

TRIALS, AT_ONCE = 8, 2
RATES = [1e-3 * (1 + number / 4) for number in range(TRIALS)]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread a trial: two at a time fill two cores on every side
NAIVE = """
import os, sys
from functools import partial
from pathlib import Path
os.environ.update(RAY_AUTH_MODE="disabled", RAY_CHDIR_TO_TRIAL_DIR="0", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2")
import ray
from ray import tune
from cluster.train import Workers, fit_on_workers
from depthray.training import preflight
from depthray.runs.run import prepare

def trial(config, out):
    recipe = preflight.load("demo", config["words"])
    run = Path(out, config["words"][-1])
    prepare(run, recipe, resume=False)
    fit_on_workers(recipe, run, Workers(count=1, cpus=1))

if __name__ == "__main__":
    ray.init("local", num_cpus=3, log_to_driver=False)  # a third for the drivers of the trials
    space = {"words": tune.grid_search([words.split() for words in sys.argv[2:]])}
    resources = tune.with_resources(partial(trial, out=sys.argv[1]), {"cpu": 0.1})
    tune.Tuner(resources, param_space=space, tune_config=tune.TuneConfig(max_concurrent_trials=2),
               run_config=tune.RunConfig(storage_path=sys.argv[1], verbose=0)).fit()
    ray.shutdown()
"""


def main() -> int:
    """Print the wall times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    base = f"data.size=96,128 data.frames=480 train.epochs={args.epochs} train.precision=fp32".split()
    plain, searched, trainers = [], [], []
    for number in range(args.rounds):
        work = Path(tempfile.mkdtemp(prefix=f"depthray-search-{number}-"))
        plain.append(_seconds(partial(_train_plainly, work, base)))
        searched.append(_seconds(partial(_search, work, base)))
        trainers.append(_seconds(partial(_train_in_trials, work, base)))
        print(
            f"round {number}: plain {plain[-1]:.1f} s, tune {searched[-1]:.1f} s, trainers {trainers[-1]:.1f} s",
            flush=True,
        )
        assert _scores(work / "plain") == _scores(work / "search" / "trials"), "the sides did not compute the same"
    without, tune, trainer = (statistics.median(times) for times in (plain, searched, trainers))
    print(f"without Ray                 {without:6.1f} s")
    print(f"depthray tune               {tune:6.1f} s  ratio {tune / without:.2f}  (wanted <= 1.25)")
    print(f"a TorchTrainer in each trial {trainer:5.1f} s  ratio {trainer / without:.2f}")
    return 0


def _seconds(side: Callable[[], None]) -> float:
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def _run(*words: str) -> None:
    done = subprocess.run([sys.executable, *words], env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:  # a side that fails early would look fast
        sys.exit(f"{' '.join(words)[:300]}\n{done.stdout}\n{done.stderr}")


def _train_plainly(work: Path, base: list[str]) -> None:
    """Eight processes, two at a time."""

    def train(number: int) -> None:
        out = ["--local", "--out", str(work / "plain" / f"{number:04d}")]
        _run("-m", "depthray", "train", "demo", *base, f"optim.lr={RATES[number]}", *out)

    with ThreadPoolExecutor(AT_ONCE) as pool:  # each thread waits for a process
        list(pool.map(train, range(TRIALS)))


def _search(work: Path, base: list[str]) -> None:
    """One search over eight points; the first is the recipe as it is, which a search always trains."""
    space = work / "space.yaml"
    space.write_text(yaml.safe_dump({"points": [{"optim.lr": rate} for rate in RATES[1:]]}), encoding="utf-8")
    # No scheduler and no repeats: every side runs the same eight trainings to their end.
    flags = ["--concurrent", str(AT_ONCE), "--cpus-per-worker", "1", "--scheduler", "none", "--repeats", "0"]
    first = f"optim.lr={RATES[0]}"
    _run("-m", "depthray", "tune", "demo", *base, first, *flags, "--space", str(space), "--out", str(work / "search"))


def _train_in_trials(work: Path, base: list[str]) -> None:
    """Ray's documented pattern for trials of any number of workers, here of one."""
    script = work / "naive.py"
    script.write_text(NAIVE, encoding="utf-8")
    _run(str(script), str(work / "naive"), *(" ".join([*base, f"optim.lr={rate}"]) for rate in RATES))


def _scores(runs: Path) -> list[float]:
    """AbsRel of the best checkpoint of each run, sorted."""
    from depthray.runs.locate import summary

    return sorted(summary(run)[1]["abs_rel"] for run in runs.iterdir())


if __name__ == "__main__":
    sys.exit(main())
