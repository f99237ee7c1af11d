"""The plan of a search, checked before anything starts: recipe, space, data, settings, resources of the cluster."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.resources import Workers, unused_gpus
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.batch_size import check_batch_size
from depthray.config.overrides import read_yaml
from depthray.config.ray_environment import gpu_slots
from depthray.config.sections import Recipe
from depthray.errors import ResourceError, UsageError
from depthray.runs import layout
from depthray.training import preflight
from tuning.records import Search, read_search
from tuning.search import slots
from tuning.space import constraints, space_check
from tuning.space import space as spaces
from tuning.space.space import Space

SEARCHERS = ("tpe", "random", "grid")
SCHEDULERS = ("asha", "median", "pbt", "none")
# Population based training may change these keys while a trial runs, but not those that the saved state depends on.
PBT_PREFIXES = ("augment.", "loss.", "optim.")
PBT_FIXED = ("optim.name", "optim.schedule", "optim.average")
# Flags without a default in argparse: where none is given, a resumed search keeps its own value.
DEFAULTS = {"trials": 16, "top": 3, "repeats": 2, "retries": 1, "hours": 0.0, "gpu_hours": 0.0}


class SearchPlan(NamedTuple):
    """A search that may start."""

    folder: Path
    search: Search
    space: Space


def begin(args: argparse.Namespace, log: Callable[[str], None] = lambda _: None) -> SearchPlan:
    """A new search, with its folder; `log` gets what was adjusted. Raises UsageError or DataError."""
    recipe, space = parse_request(args)
    recipe, notes = _fit_to_frames(args, recipe, space)
    search = _search(args, recipe, space)
    folder = _folder(args)
    try:
        (folder / layout.TRIALS).mkdir(parents=True, exist_ok=True)
        (folder / layout.RECIPE).write_text(recipes.dump(recipe), encoding="utf-8")
        # As it was parsed: the user's own file may change before the search is resumed.
        (folder / layout.SPACE).write_text(yaml.safe_dump(dict(search.space), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the folder {folder}: {error.strerror}; give another --out") from None
    for note in notes:
        log(note)
    return SearchPlan(folder, search, space)


def parse_request(args: argparse.Namespace) -> tuple[Recipe, Space]:
    """The recipe and the space of a new search, checked against each other and the settings; not the data."""
    recipe = _recipe(args)
    space = spaces.read(args.space)
    space = replace(space, constraints={**space.constraints, **constraints.parse_flags(args.constraints)})
    own_code.allow(spaces.own_names(space))
    space_check.check(space, recipe, where=args.space)
    _check(args, recipe, space)
    return recipe, space


def resume(args: argparse.Namespace) -> SearchPlan:
    """A search to resume, with its settings except for the budgets. Raises UsageError where there is none."""
    folder = Path(os.path.realpath(args.resume))  # trials run in other working directories
    search = read_search(folder)
    if args.recipe or args.overrides or args.constraints:
        raise UsageError("--resume uses the recipe, overrides and constraints of the search; leave out others")
    changed = {key: value for key in DEFAULTS if (value := getattr(args, key)) is not None}
    space = spaces.parse(read_yaml(folder / layout.SPACE), where=str(folder / layout.SPACE))
    if args.trust:
        own_code.allow_everything()
        own_code.allow(spaces.own_names(space))
    _check_data(preflight.load(str(folder / layout.RECIPE), [], trust=args.trust))
    return SearchPlan(folder, replace(search, **changed, ended=0.0), space)  # it runs again


def fit_to_cluster(search: Search, *, concurrent: int | None, cpus: int | None) -> Search:
    """The search with the CPUs of a worker and the number of trials at a time that fit on the cluster.

    Raises ResourceError if not even one trial fits.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = {key: sum(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
    each = int(search.cpus) or cpus or _share(total, search, concurrent=concurrent)  # a resumed search keeps its own
    capacity = slots(nodes, Workers(search.workers, each, search.gpus)) // search.workers
    if not capacity:
        gpus = f" and {search.gpus:g} GPUs" if search.gpus else ""
        raise ResourceError(
            f"a trial of {search.workers} workers x {each} CPUs{gpus} was requested, which does not fit on the cluster "
            f"({total['CPU']:g} CPUs, {total['GPU']:g} GPUs on {len(nodes)} nodes); lower "
            "--workers-per-trial, --cpus-per-worker or --gpus-per-worker, or give the --address of a larger cluster"
        )
    if concurrent and concurrent > capacity:
        raise ResourceError(f"--concurrent {concurrent}: {capacity} such trials fit on the cluster at a time")
    # Recorded only now: before, nobody knows which cluster --address or a local start gives.
    about = {**search.about, "cluster": f"{len(nodes)} nodes, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs"}
    return replace(
        search,
        cpus=float(each),
        concurrent=concurrent or min(capacity, search.concurrent or search.trials + 1),
        about=about,
    )


def unused_gpus_of_cluster(search: Search) -> str:
    """A line where the cluster has GPUs and trials request none; "" otherwise."""
    import ray

    return unused_gpus(ray.cluster_resources(), requested=search.gpus, flag="--gpus-per-worker 1, or a part of one")


def _share(total: dict[str, float], search: Search, *, concurrent: int | None) -> int:
    """CPUs a worker, so that all workers that run at a time have equally many and none is idle."""
    # With GPUs, there are no more workers at a time than those allow, and each may have more CPUs.
    slots_in_total = gpu_slots(total["GPU"], search.gpus) if search.gpus else int(total["CPU"])
    # One more than the configurations: the baseline.
    at_once = min((concurrent or search.trials + 1) * search.workers, max(1, slots_in_total))
    return max(1, int(total["CPU"]) // max(1, at_once))


def _recipe(args: argparse.Namespace) -> Recipe:
    if args.recipe and "=" in args.recipe:  # `depthray tune optim.lr=3e-4`: argparse takes the first for the recipe
        args.overrides, args.recipe = [args.recipe, *args.overrides], ""
    if not args.recipe:
        raise UsageError(f"no recipe is given; choose from: {', '.join(recipes.names())}; or a path to a YAML file")
    overrides = [*args.overrides, *([f"data.root={recipes.absolute_path(args.data)}"] if args.data else [])]
    return preflight.load_with_data(args.recipe, overrides)


def _check(args: argparse.Namespace, recipe: Recipe, space: Space) -> None:
    """Raise UsageError for settings that contradict each other."""
    for flag in ("trials", "workers_per_trial", "reduction", "cpus_per_worker", "concurrent", "grace"):
        if (value := getattr(args, flag)) is not None and value < (2 if flag == "reduction" else 1):
            raise UsageError(f"--{flag.replace('_', '-')} {value} is too few")
    for flag in ("top", "repeats", "retries", "hours", "gpu_hours", "gpus_per_worker"):
        if (getattr(args, flag) or 0) < 0:
            raise UsageError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: below 0")
    if args.objectives and (args.search != "tpe" or args.scheduler != "none"):
        raise UsageError("--objectives needs --search tpe and --scheduler none: a trial stopped early has no cost yet")
    if args.gpus_per_worker % 1 and args.gpus_per_worker > 1:
        raise UsageError(f"--gpus-per-worker {args.gpus_per_worker:g}: above 1 it is a whole number, as Ray places it")
    if args.gpus_per_worker % 1 and args.workers_per_trial > 1:
        raise UsageError(f"--gpus-per-worker {args.gpus_per_worker:g}: a part of a GPU is for trials of one worker")
    check_batch_size(
        recipe.train.batch_size,
        workers=args.workers_per_trial,
        accumulate=recipe.train.accumulate,
        name=f"--workers-per-trial {args.workers_per_trial}",
    )
    _check_pbt(args, space)


def _check_pbt(args: argparse.Namespace, space: Space) -> None:
    """Raise UsageError where population based training is impossible in this space."""
    if args.scheduler != "pbt":
        return
    if args.search != "random" or space.points:
        raise UsageError(
            "--scheduler pbt starts from random configurations; give --search random and a space of ranges"
        )
    for dimension in space.dimensions:
        if not dimension.key.startswith(PBT_PREFIXES) or dimension.key in PBT_FIXED:
            raise UsageError(
                f"--scheduler pbt changes overrides while a trial runs, which is impossible for {dimension.key}; "
                f"search only {', '.join(f'{start}*' for start in PBT_PREFIXES)} without {', '.join(PBT_FIXED)}"
            )


def _search(args: argparse.Namespace, recipe: Recipe, space: Space) -> Search:
    epochs = recipe.train.epochs + recipe.finetune.epochs
    budgets: dict[str, Any] = {
        key: default if getattr(args, key) is None else getattr(args, key) for key, default in DEFAULTS.items()
    }
    if space.points:
        budgets["trials"] = len(space.points)
    elif args.search == "grid":
        budgets["trials"] = len(space.grid())
    return Search(
        **budgets,
        recipe=Path(args.recipe).stem,
        space=spaces.to_tree(space),
        epochs=epochs,
        metric=recipe.eval.monitor,
        objectives=(recipe.eval.monitor, *args.objectives),
        searcher="given points" if space.points else args.search,
        scheduler=args.scheduler,
        seed=args.seed,
        first_seed=recipe.seed,
        workers=args.workers_per_trial,
        cpus=0.0,  # these two are known when the cluster is, see fit_to_cluster
        gpus=args.gpus_per_worker,
        concurrent=0,
        # A ninth: with a reduction of 3, asha then has two rungs before the last epoch.
        grace=args.grace or max(1, -(-epochs // 9)),
        reduction=args.reduction,
        started=time.time(),
        about=_provenance(recipe, _check_data(recipe)),
    )


def _folder(args: argparse.Namespace) -> Path:
    name = f"tune-{Path(args.recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(os.path.realpath(args.out or Path("runs", name)))
    if (folder / layout.SEARCH).exists():
        raise UsageError(f"{folder} already holds a search; continue it with --resume {folder}, or give another --out")
    return folder


def _fit_to_frames(args: argparse.Namespace, recipe: Recipe, space: Space) -> tuple[Recipe, list[str]]:
    """The recipe with values that fit the number of training frames, if neither searched nor given; a line on those."""
    from depthray.data.sources import open_source
    from depthray.runs import new_run

    searched = {key for point in space.points for key in point} | {each.key for each in space.dimensions}
    given = new_run.given_keys(args.recipe, args.overrides) | searched
    source = open_source(recipe.data, verify=False)  # verified below, with all else
    return new_run.fit_to_source(recipe, source, given=given, workers=args.workers_per_trial)


def _check_data(recipe: Recipe) -> str:
    """The fingerprint of the frames. Raises for mistakes in data or model before a cluster is started."""
    from depthray.training.dry_run import check_before_run

    return check_before_run(recipe, start=True)


def _provenance(recipe: Recipe, fingerprint: str) -> dict[str, str]:
    about = {"data": recipe.data.place, "data fingerprint": fingerprint, "git": _git()}
    for name in ("depthray", "torch", "ray", "optuna", "numpy"):
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "not installed"
    return {**about, "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}


def _git() -> str:
    """The commit of the code, if it runs from a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # the code also has what is not committed
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "not a checkout"
