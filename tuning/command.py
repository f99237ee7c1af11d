"""`depthray tune`: search learning rates, augmentations, loss weights and any other dotted key with Ray Tune."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cluster.session import ray_cluster
from depthray.cli.flags import job_flags
from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import count_of
from depthray.waiting import Heartbeat
from tuning import plan, search
from tuning.records import ENDED, Search, SearchLimits, Trial, read_trials, write_search
from tuning.report import build
from tuning.space import space
from tuning.space.constraints import COSTS, EXAMPLE
from tuning.study.study import Study, describe_constraints
from tuning.values import wrapped


def main(argv: list[str]) -> int:
    """Start or resume a search, and report its result."""
    args = build_parser().parse_intermixed_args(argv)
    with Heartbeat("recipe, space and frames to be checked"):
        folder, settings, searched = plan.resume(args) if args.resume else plan.begin(args, _print)
    # The hours of this start: a search that is resumed gets them again, but GPU-hours count over all its starts.
    limits = SearchLimits(settings.hours and time.time() + settings.hours * 3600, settings.gpu_hours * 3600)
    # Without a dashboard Ray Train never releases the resources of trials that Tune has stopped, and the search hangs.
    with ExitStack() as stack:
        with Heartbeat(f"the Ray cluster at {args.address}" if args.address else "Ray to start on this machine"):
            stack.enter_context(ray_cluster(args.address, workers=1, dashboard=settings.workers > 1))
            settings = plan.fit_to_cluster(settings, concurrent=args.concurrent, cpus=args.cpus_per_worker)
            if note := plan.unused_gpus_of_cluster(settings):
                _print(note)
        write_search(folder, settings)
        _interrupt_on_sigterm()
        _print_plan(folder, settings, searched)
        _print("trials run; a line follows for each that ends")
        # Not every few seconds: a search takes hours.
        stack.enter_context(Heartbeat("trials to end", stream=sys.stdout, every=60.0))
        search.explore(folder, settings, searched, limits=limits, log=_print)
        # Which configurations are the best is known only when all have ended.
        if not _count_unfinished(folder, "default", "search"):
            search.confirm(folder, settings, _trials_to_repeat(folder, settings), limits=limits, log=_print)
    left = _count_unfinished(folder, "default", "search", "repeat")
    write_search(folder, replace(settings, ended=0.0 if left else time.time()))
    _print("")
    build.main([str(folder)])  # after a stop too: its warnings say what is missing
    if left:
        why = "the limit is reached" if limits.reached else "stopped"
        _print(f"{why}: {count_of(left, 'trial')} not ended; resume with: depthray tune --resume {_relative(folder)}")
    # As a shell reports an interrupted command; a limit that is reached is what was requested.
    return 130 if left and not limits.reached else 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `depthray tune`."""
    parser = CommandParser(
        prog="depthray tune",
        description="Search over a recipe's dotted keys. Overrides such as train.epochs=12 change the baseline recipe, "
        "that of all trials.",
    )
    add = parser.add_argument  # the defaults of budgets are in plan.DEFAULTS: a resumed search keeps its own
    add("recipe", nargs="?", default="", help="name of a recipe or path of its YAML file")
    add("overrides", nargs="*", metavar="section.key=value", help="changes of the recipe, such as optim.lr=3e-4")
    add("--space", metavar="FILE", default="all", help=f"what is searched: {', '.join(space.names())}, or a YAML file")
    add("--data", metavar="PATH", help="where the data are (data.root)")
    add("--out", metavar="SEARCH", type=Path, help="folder of the search (default: runs/tune-RECIPE-DATE)")
    add("--resume", metavar="SEARCH", type=Path, help="resume a search; no trial that ended is run again")
    add("--trust", action="store_true", help="with --resume: run one's own code that the search names")
    add("--trials", type=int, metavar="N", help="searched configurations (default: 16)")
    add("--search", choices=plan.SEARCHERS, default="tpe", help="what proposes them (default: tpe, from Optuna)")
    add("--scheduler", choices=plan.SCHEDULERS, default="asha", help="what stops bad trials early (default: asha)")
    add("--grace", type=int, metavar="EPOCHS", help="epochs before a trial may be stopped (default: a ninth of all)")
    add("--reduction", type=int, default=3, metavar="N", help="asha: one in N continues from each rung (default: 3)")
    add("--objectives", nargs="+", choices=COSTS, default=[], help="to minimise as well: a Pareto front")
    add("--constraints", nargs="+", default=[], metavar="COST=LIMIT", help=f"what the best may cost, as in {EXAMPLE}")
    add("--seed", type=int, default=0, help="of the searcher; the recipe has its own (default: 0)")
    add("--top", type=int, metavar="K", help="best configurations to repeat under other seeds (default: 3)")
    add("--repeats", type=int, metavar="N", help="repeats of each of them, and of the baseline (default: 2)")
    add("--workers-per-trial", type=int, default=1, metavar="K", help="training processes a trial (default: 1)")
    add("--cpus-per-worker", type=int, metavar="N", help="CPUs a worker (default: an equal share)")
    add("--gpus-per-worker", type=float, default=0.0, metavar="G", help="GPUs a worker; 0.5 is half of one")
    add("--concurrent", type=int, metavar="M", help="trials at a time (default: as many as fit on the cluster)")
    add("--hours", type=float, metavar="H", help="wall-clock budget; 0 = none")
    add("--gpu-hours", type=float, metavar="H", help="budget of GPU-hours over all trials; 0 = none")
    add("--retries", type=int, metavar="N", help="of a lost trial (default: 1)")
    add("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    job_flags.add_flags(parser)
    return parser


def _trials_to_repeat(folder: Path, settings: Search) -> list[Trial]:
    """The baseline and the best configurations, of those that ran to their end."""
    if settings.scheduler == "pbt":  # one training cannot repeat overrides that changed while it ran
        return []
    study = Study.read(folder)
    # Stopped ones have no score after all epochs that repeats could be compared with.
    ended = [each.outcome for each in study.ranking if each.outcome.trial.state == "done"]
    done = [each.trial for each in ended if study.is_feasible(each)]
    return [*([study.default.outcome.trial] if study.default else []), *done[: settings.top]]


def _interrupt_on_sigterm() -> None:
    """Treat SIGTERM like Ctrl-C, on which Tune ends the trials and returns; call it after Ray has set its handler."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _count_unfinished(folder: Path, *kinds: str) -> int:
    """The number of trials of these kinds that have not ended."""
    return sum(trial.state not in ENDED for trial in read_trials(folder) if trial.kind in kinds)


def _print(text: str) -> None:
    print(text, flush=True)


def _relative(path: Path) -> Path:
    here = Path.cwd()  # a shorter path to copy
    return path.relative_to(here) if path.is_relative_to(here) else path


def _print_plan(folder: Path, settings: Search, searched: space.Space) -> None:
    """Print what is about to run."""
    keys = ", ".join(dimension.key for dimension in searched.dimensions) or f"{len(searched.points)} points"
    _print(wrapped(f"searching {keys}"))
    gpus = f" and {settings.gpus:g} GPU" if settings.gpus else ""
    each = f"{settings.cpus:g} CPU{gpus} for each worker" if settings.workers > 1 else f"{settings.cpus:g} CPU{gpus}"
    of_workers = f"{count_of(settings.workers, 'worker')}, " if settings.workers > 1 else ""
    plan_text = (
        f"{count_of(settings.trials, 'configuration')} of {settings.recipe}, "
        f"{count_of(settings.epochs, 'epoch')} each, "
        f"{settings.concurrent} at a time ({of_workers}{each}), "
        f"by {settings.searcher}, scheduler {settings.scheduler}"
        + (f", within {describe_constraints(settings)}" if settings.constraints else "")
    )
    _print(wrapped(plan_text))
    _print(f"follow       tensorboard --logdir {_relative(folder)}/trials   or   depthray report {_relative(folder)}")
