"""`depthray tune`: search learning rates, augmentations, loss weights and any other dotted key with Ray Tune."""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from cluster.session import ray_cluster
from depthray.cli import submit_flags
from tuning import plan, search
from tuning.records import ENDED, Search, Trial, read_trials, write_search
from tuning.report import build
from tuning.space import space
from tuning.trial_limits import SearchLimits


def main(argv: list[str]) -> int:
    """Search, or go on with a search, and say what was found."""
    args = build_parser().parse_intermixed_args(argv)
    asked = plan.resume(args) if args.resume else plan.begin(args)
    folder, found = asked.folder, asked.search
    limits = SearchLimits(found.hours and time.time() + found.hours * 3600, found.gpu_hours * 3600)
    with ray_cluster(args.address, workers=1, dashboard=found.workers > 1):
        found = plan.fit_to_cluster(found, concurrent=args.concurrent, cpus=args.cpus_per_worker)
        write_search(folder, found)
        _leave_on_sigterm()
        _print_plan(folder, found, asked.space)
        search.explore(folder, found, asked.space, limits=limits, say=_print)
        if not _count_unfinished(folder, "default", "search"):
            search.confirm(folder, found, _trials_to_repeat(folder, found), limits=limits, say=_print)
    left = _count_unfinished(folder, "default", "search", "repeat")
    write_search(folder, replace(found, ended=0.0 if left else time.time()))
    _print("")
    build.main([str(folder)])
    if left:
        why = "the limit is reached" if limits.reached else "stopped"
        _print(f"{why}: {left} trials have not ended; go on with: depthray tune --resume {_relative(folder)}")
    return 130 if left and not limits.reached else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray tune",
        description="Search over a recipe's dotted keys. Dotted words change the recipe all trials begin from: "
        "train.epochs=12",
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="", help="name of a recipe or path of its YAML file")
    add("overrides", nargs="*", metavar="section.key=value", help="changes of the recipe, such as optim.lr=3e-4")
    add("--space", metavar="FILE", default="all", help=f"what is searched: {', '.join(space.names())}, or a YAML file")
    add("--data", metavar="PATH", help="where the data lies (data.root)")
    add("--out", metavar="SEARCH", type=Path, help="the search's folder (default: runs/tune-RECIPE-DATE)")
    add("--resume", metavar="SEARCH", type=Path, help="go on with a search; no trial that ended is run again")
    add("--trials", type=int, metavar="N", help="searched configurations (default: 16)")
    add("--search", choices=plan.SEARCHERS, default="tpe", help="what proposes them (default: tpe, of Optuna)")
    add("--scheduler", choices=plan.SCHEDULERS, default="asha", help="what stops the hopeless early (default: asha)")
    add("--grace", type=int, metavar="EPOCHS", help="epochs before a trial may be stopped (default: a ninth of all)")
    add("--reduction", type=int, default=3, metavar="N", help="asha: one in N goes on from each rung (default: 3)")
    add("--objectives", nargs="+", choices=plan.COSTS, default=[], help="to be kept low as well: a Pareto front")
    add("--seed", type=int, default=0, help="of the searcher; the recipe has its own (default: 0)")
    add("--top", type=int, metavar="K", help="configurations that are run again under other seeds (default: 3)")
    add("--repeats", type=int, metavar="N", help="how often each of them is, and the recipe as it is (default: 2)")
    add("--workers-per-trial", type=int, default=1, metavar="K", help="training processes a trial (default: 1)")
    add("--cpus-per-worker", type=int, metavar="N", help="CPUs a worker (default: an equal share)")
    add("--gpus-per-worker", type=float, default=0.0, metavar="G", help="GPUs a worker, or a part of one: 0.5")
    add("--concurrent", type=int, metavar="M", help="trials at a time (default: as many as there is room for)")
    add("--hours", type=float, metavar="H", help="wall-clock budget; 0 = none")
    add("--gpu-hours", type=float, metavar="H", help="budget of GPU-hours over all trials; 0 = none")
    add("--retries", type=int, metavar="N", help="of a trial that was lost (default: 1)")
    add("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    submit_flags.add_flags(parser)
    return parser


def _trials_to_repeat(folder: Path, found: Search) -> list[Trial]:
    """The recipe as it is and the best configurations, as far as they came to their end."""
    from tuning.study.study import Study

    if found.scheduler == "pbt":  # words that changed under way cannot be trained again in one go
        return []
    study = Study.read(folder)
    ended = [each.outcome.trial for each in study.ranking() if each.outcome.trial.state == "done"]
    default = study.default()
    return [*([default.outcome.trial] if default else []), *ended[: found.top]]


def _leave_on_sigterm() -> None:
    """As on Ctrl-C, on which Tune ends the trials and returns. To be called when Ray, which sets its own, is up."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _count_unfinished(folder: Path, *kinds: str) -> int:
    """How many trials of these kinds have not ended."""
    return sum(known.state not in ENDED for known in read_trials(folder) if known.kind in kinds)


def _print(text: str) -> None:
    print(text, flush=True)


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _print_plan(folder: Path, found: Search, searched: space.Space) -> None:
    """Say what is about to happen."""
    keys = ", ".join(dimension.key for dimension in searched.dimensions) or f"{len(searched.points)} points"
    _print(f"searching {keys}")
    _print(
        f"{found.trials} configurations of {found.recipe}, {found.epochs} epochs each, {found.concurrent} at a time "
        f"({found.workers} x {found.cpus:g} CPUs{f', {found.gpus:g} GPUs' if found.gpus else ''}), "
        f"by {found.searcher}, scheduler {found.scheduler}"
    )
    _print(f"follow       tensorboard --logdir {_relative(folder)}/trials   or   depthray report {_relative(folder)}")
