"""`depthray train`: the command line, and training in this process. `cluster.train` adds Ray."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from depthray.cli.flags import job_flags
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.errors import DepthrayError, UsageError
from depthray.runs import console, download, layout
from depthray.storage.folders import open_folder
from depthray.storage.remote import is_remote, normalize_address
from depthray.training import preflight

# Trains a recipe into a run on the workers that the arguments describe. Returns whether training ran to its end.
Launcher = Callable[[Recipe, Path | str, argparse.Namespace], bool]


def main(argv: list[str], launch: Launcher) -> int:
    """Train a recipe and print where its checkpoint is. `launch` trains where neither --local nor torchrun is used."""
    args = build_parser().parse_intermixed_args(argv)
    recipe = load_recipe(args)
    run = _run_folder(args)
    if args.local or "RANK" in os.environ:  # torchrun's parser takes --local for a flag of its own
        finished = train_local(recipe, run, gpu=args.gpu or None, resume=args.resume)
    else:
        if args.min_workers and not args.address:
            raise UsageError("--min-workers is for a cluster whose nodes come and go; give its --address, or --submit")
        prepare_run(run, recipe, resume=args.resume)  # so that errors of the user show before a cluster is started
        finished = launch(recipe, run, args)
    if int(os.environ.get("RANK", "0")) == 0:  # of the processes of torchrun
        print_result(run, finished)
    return 0 if finished else 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray train`."""
    parser = argparse.ArgumentParser(
        prog="depthray train",
        description="Train a recipe. Dotted overrides change numbers: optim.lr=3e-4 train.epochs=5",
    )
    parser.add_argument("recipe", nargs="?", default="", help="name of a recipe or path of its YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="changes of the recipe, such as optim.lr=3e-4"
    )
    parser.add_argument("--data", metavar="PATH", help="folder or address of the data (data.root)")
    parser.add_argument("--from", metavar="RUN", help="start from the weights of a run or checkpoint (model.weights)")
    parser.add_argument("--out", metavar="RUN", type=Path, help="the run's folder (default: runs/RECIPE-DATE)")
    parser.add_argument("--resume", action="store_true", help="resume the run in --out")
    parser.add_argument("--workers", type=int, default=1, help="training processes (default: 1)")
    parser.add_argument("--min-workers", type=int, metavar="N", help="continue on as few if nodes are lost (elastic)")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--cpus-per-worker", type=int, metavar="N", help="CPUs for each worker (default: equal shares)")
    parser.add_argument("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    wait = "wait so long for nodes of a cluster that starts them on demand (default: 15)"
    parser.add_argument("--wait", type=float, default=15.0, metavar="MINUTES", help=wait)
    parser.add_argument("--max-failures", type=int, default=8, metavar="N", help="lost workers replaced (default: 8)")
    parser.add_argument("--local", action="store_true", help="in this process, without Ray (implied under torchrun)")
    job_flags.add_flags(parser)
    return parser


def load_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe with its overrides, of the command line or of the run to resume. Raises UsageError."""
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers}: at least 1 is needed")
    if args.local and args.workers > 1:
        raise UsageError(f"--local is one process; leave out --workers {args.workers}, or use torchrun")
    if args.recipe and "=" in args.recipe:  # an override, where --resume makes a recipe unnecessary
        args.overrides, args.recipe = [args.recipe, *args.overrides], ""
    if args.resume and not args.out:
        raise UsageError("--resume needs --out RUN, the folder of the run to resume")
    if not args.recipe and not args.resume:
        raise UsageError(f"which recipe? choose from: {', '.join(recipes.names())}; or a path to a YAML file")
    if args.resume and not is_remote(args.out) and not (args.out / layout.RECIPE).is_file():
        raise UsageError(f"--resume: {args.out} holds no run (no {layout.RECIPE} there)")
    recipe = recipes.absolute(preflight.load(args.recipe or str(_saved_recipe(args.out)), _overrides(args)))
    if args.resume and args.recipe:
        saved = preflight.load(str(_saved_recipe(args.out)), training=False)
        recipe = recipes.with_values_before(recipe, saved, given=[each.partition("=")[0] for each in args.overrides])
    preflight.worker_counts(recipe, least=args.min_workers or args.workers, most=args.workers)
    return recipe


def _overrides(args: argparse.Namespace) -> list[str]:
    """The dotted overrides, with those that flags stand for."""
    overrides = list(args.overrides)
    if args.data:
        overrides.append(f"data.root={recipes.absolute_path(args.data)}")
    if start := vars(args)["from"]:  # `from` is a word of Python
        # A folder of a plain name could else be taken for a name of the catalogue.
        overrides.append(f"model.weights={os.path.realpath(start) if os.path.exists(start) else start}")
    return overrides


def _saved_recipe(run: Path) -> Path:
    """The recipe file of a run, downloaded where the run is remote."""
    if not is_remote(run):
        return run / layout.RECIPE
    return download.recipe_file(run)


def _run_folder(args: argparse.Namespace) -> Path | str:
    if args.out and is_remote(args.out):
        return normalize_address(args.out)
    if args.out:
        # `Path.resolve` would raise on a loop of links, which writing reports in one line.
        return Path(os.path.realpath(args.out))
    return Path("runs", f"{Path(args.recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()


def train_local(recipe: Recipe, run: Path | str, *, gpu: bool | None, resume: bool) -> bool:
    """Train in this process, one of several under torchrun, on a GPU if there is one; False if it was stopped."""
    from depthray import distributed
    from depthray.runs.control import is_stop_requested, stop_on_signals
    from depthray.runs.run import record

    device = distributed.start(gpu=gpu)
    run = distributed.broadcast(run)  # its name may have the time, which processes read apart
    _prepare_once(run, recipe, resume=resume)
    display = console.Display() if distributed.is_main() else None
    stop_on_signals(run, lambda text: print(text, file=sys.stderr))
    try:
        for _ in record(recipe, run, device, show=display.show if display else lambda _: None):
            pass
    finally:
        if display:
            display.close()
        distributed.stop()
    # The file STOP stays after the stop that it caused; the next start removes it.
    return not is_stop_requested(run)


def _prepare_once(run: Path | str, recipe: Recipe, *, resume: bool) -> None:
    """Prepare the run's folder on rank 0; its error is raised on every rank, so that none waits for it."""
    from depthray import distributed

    failure: DepthrayError | None = None
    if distributed.is_main():
        try:
            prepare_run(run, recipe, resume=resume)
        except DepthrayError as error:
            failure = error
    if failure := distributed.broadcast(failure):
        raise failure


def prepare_run(run: Path | str, recipe: Recipe, *, resume: bool) -> None:
    """Prepare the run's folder, last: after an error in data or model the same command can be repeated."""
    from depthray.runs.run import prepare
    from depthray.training.dry_run import check_before_run

    check_before_run(recipe, start=not resume)
    prepare(run, recipe, resume=resume)


def print_result(run: Path | str, finished: bool) -> None:
    """Print where the best checkpoint is, its scores, and the next command."""
    from depthray.runs.console import SHOWN_SCORES
    from depthray.runs.locate import summary
    from depthray.runs.loggers import scores_of

    best, metrics = summary(run)
    scores = scores_of(metrics)
    shown = [key for key in SHOWN_SCORES if key in scores] or list(scores)  # a protocol may have scores of its own only
    scored = ", ".join(f"{key} {scores[key]:.4f}" for key in shown)
    try:
        here = Path.cwd()
    except OSError:  # removed: Ray unpacks a job's code anew when a node starts next to its driver
        here = Path(os.devnull)

    def show(path: Path | str) -> Path | str:
        return path.relative_to(here) if isinstance(path, Path) and path.is_relative_to(here) else path

    print(f"checkpoint   {show(best)}  ({scored or 'not validated yet'})")
    curves = f"{run}/{layout.TENSORBOARD}" if isinstance(run, str) else run / layout.TENSORBOARD
    print(f"tensorboard  tensorboard --logdir {show(curves)}")
    if finished:
        _print_gain(run)
        print(f"next         depthray predict {show(best)} IMAGE")
    else:
        print(f"stopped      resume with: depthray train --out {show(run)} --resume")


def _print_gain(run: Path | str) -> None:
    """Print what training gained over the weights that the run started from, where these could predict."""
    try:
        table = open_folder(run).read(layout.GAIN_TABLE).decode()
    except FileNotFoundError:
        return
    print(f"\n{table}")
