"""`depthray train`: the command line, and training in this process. `cluster.train` adds Ray."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from depthray.cli.flags import job_flags, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.config.small_data import KEYS
from depthray.errors import DepthrayError, ResourceError, UsageError, count_of
from depthray.runs import console, download, layout, trackers
from depthray.storage.environment import retry_seconds
from depthray.storage.folders import open_folder
from depthray.storage.remote import is_remote, normalize_address
from depthray.training import preflight
from depthray.waiting import TIMEOUT_MINUTES, Heartbeat

MOST_MINUTES = 10_080  # a week
SPARE_MINUTES = 5.0
# Trains a recipe into a run on the workers that the arguments describe. Returns whether training ran to its end.
Launcher = Callable[[Recipe, Path | str, argparse.Namespace], bool]


def main(argv: list[str], launch: Launcher) -> int:
    """Train a recipe and print where its checkpoint is. `launch` trains where neither --local nor torchrun is used."""
    args = build_parser().parse_intermixed_args(argv)
    if args.log is not None:
        trackers.parse(args.log, where="--log")
        os.environ[trackers.VARIABLE] = args.log  # which the workers get as well
    with Heartbeat(f"the run at {args.out}" if args.resume else "the recipe"):  # a store may be slow to answer
        recipe = load_recipe(args)
    run = run_folder(args.recipe, args.out)
    if args.local or "RANK" in os.environ:  # torchrun's parser takes --local for a flag of its own
        finished = train_local(recipe, run, args)
    else:
        if args.min_workers and not args.address:
            raise UsageError("--min-workers is for a cluster whose nodes come and go; give its --address, or --submit")
        _check_gpus(args)
        recipe = prepare_run(run, recipe, args)  # so that errors of the user show before a cluster is started
        with discarded_unless_trained(run, resume=args.resume):
            finished = launch(recipe, run, args)
    if int(os.environ.get("RANK", "0")) == 0:  # of the processes of torchrun
        print_result(run, finished)
    return 0 if finished else 130


def _check_gpus(args: argparse.Namespace) -> None:
    """Raise ResourceError for more GPUs than this machine has, where Ray is started on it."""
    if not args.gpu or args.address:
        return
    import torch

    if (count := torch.cuda.device_count()) < args.workers:
        raise ResourceError(
            f"--gpu needs {count_of(args.workers, 'GPU')}, one for each worker, and PyTorch finds {count} here; lower "
            "--workers, leave out --gpu, or ask `depthray doctor` why"
        )


@contextmanager
def discarded_unless_trained(run: Path | str, *, resume: bool) -> Iterator[None]:
    """Remove the folder of a new run whose training ends by an error before its first step."""
    try:
        yield
    except BaseException:
        if not resume:
            from depthray.runs import untrained

            untrained.discard(run)
        raise


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray train`."""
    parser = CommandParser(
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
    minutes = f"a worker that waits so long for the others fails (default: {TIMEOUT_MINUTES:g})"
    parser.add_argument("--timeout", type=float, default=TIMEOUT_MINUTES, metavar="MINUTES", help=minutes)
    parser.add_argument("--max-failures", type=int, default=8, metavar="N", help="lost workers replaced (default: 8)")
    logs = f"of {','.join((*trackers.DEFAULT, *trackers.TRACKERS))} (default: {','.join(trackers.DEFAULT)})"
    parser.add_argument("--log", metavar="NAMES", help=f"what the run's numbers are written to: {logs}")
    parser.add_argument("--local", action="store_true", help="in this process, without Ray (implied under torchrun)")
    trust.add_flag(parser)
    job_flags.add_flags(parser)
    return parser


def load_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe with its overrides, of the command line or of the run to resume. Raises UsageError."""
    if args.recipe and "=" in args.recipe:  # an override, where --resume makes a recipe unnecessary
        args.overrides, args.recipe = [args.recipe, *args.overrides], ""
    _check_flags(args)
    if args.trust:
        own_code.allow_everything()
    if args.recipe:
        recipe = preflight.load_with_data(args.recipe, _overrides(args))
    else:  # of a run: its form of data is that of its checkpoints; code that it names, the user has not named
        recipe = recipes.absolute(preflight.load(str(_saved_recipe(args.out)), _overrides(args), trust=args.trust))
    if saved := _recipe_to_resume(args):
        recipe = recipes.with_values_before(recipe, saved, given=[each.partition("=")[0] for each in args.overrides])
    preflight.worker_counts(recipe, least=args.min_workers or args.workers, most=args.workers)
    return recipe


def _check_flags(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that contradict each other, and for a run to resume that is not there."""
    for flag in ("workers", "min_workers", "cpus_per_worker"):
        if (value := getattr(args, flag)) is not None and value < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {value}: at least 1 is needed")
    if not 0 < args.timeout <= MOST_MINUTES:
        raise UsageError(f"--timeout {args.timeout:g}: give minutes above 0 and up to {MOST_MINUTES}")
    if args.local and args.workers > 1:
        raise UsageError(f"--local is one process; leave out --workers {args.workers}, or use torchrun")
    if args.resume and not args.out:
        raise UsageError("--resume needs --out RUN, the folder of the run to resume")
    if not args.recipe and not args.resume:
        raise UsageError(f"no recipe is given; choose from: {', '.join(recipes.names())}; or a path to a YAML file")
    if args.resume and not is_remote(args.out) and not (args.out / layout.RECIPE).is_file():
        raise UsageError(f"--resume: {args.out} holds no run (no {layout.RECIPE} there)")


def _overrides(args: argparse.Namespace) -> list[str]:
    """The dotted overrides, with those that flags stand for."""
    overrides = list(args.overrides)
    if args.data:
        overrides.append(f"data.root={recipes.absolute_path(args.data)}")
    if start := vars(args)["from"]:  # `from` is a word of Python
        # A folder of a plain name could else be taken for a name of the catalogue.
        overrides.append(f"model.weights={os.path.realpath(start) if os.path.exists(start) else start}")
    return overrides


def _recipe_to_resume(args: argparse.Namespace) -> Recipe | None:
    """The recipe of the run to resume, where the command line names a recipe as well."""
    if not (args.resume and args.recipe):
        return None
    if not hasattr(args, "saved"):  # asked for twice, and perhaps of a store
        args.saved = recipes.read(str(_saved_recipe(args.out)), trust=False)
    saved: Recipe = args.saved
    return saved


def _saved_recipe(run: Path) -> Path:
    """The recipe file of a run, downloaded where the run is remote."""
    if not is_remote(run):
        return run / layout.RECIPE
    return download.recipe_file(run)


def timeout_minutes(args: argparse.Namespace) -> float:
    """After which a worker that waits for the others fails; longer than rank 0 waits for a disk that fails."""
    return max(float(args.timeout), retry_seconds() / 60 + SPARE_MINUTES)


def run_folder(recipe: str | os.PathLike[str], out: str | os.PathLike[str] | None) -> Path | str:
    """The folder or address of a run, by default runs/RECIPE-DATE."""
    if not out:
        return Path("runs", f"{Path(recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    place = os.fspath(out)
    # `Path.resolve` would raise on a loop of links, which writing reports in one line.
    return normalize_address(place) if is_remote(place) else Path(os.path.realpath(place))


def train_local(recipe: Recipe, run: Path | str, args: argparse.Namespace) -> bool:
    """Train in this process, one of several under torchrun, on a GPU if there is one; False if it was stopped."""
    from depthray import distributed
    from depthray.runs.control import is_stop_requested, stop_on_signals
    from depthray.runs.run import record

    device = distributed.start(gpu=args.gpu or None, timeout_minutes=timeout_minutes(args))
    run = distributed.broadcast(run)  # its name may have the time, which processes read apart
    recipe = _prepare_once(run, recipe, args)
    display = console.Display() if distributed.is_main() else None
    stop_on_signals(run, lambda text: print(text, file=sys.stderr))
    try:
        with discarded_unless_trained(run, resume=args.resume or not display):
            for _ in record(recipe, run, device, show=display.show if display else lambda _: None):
                pass
    finally:
        if display:
            display.close()
        distributed.stop()
    # The file STOP stays after the stop that it caused; the next start removes it.
    return not is_stop_requested(run)


def _prepare_once(run: Path | str, recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """Prepare the run's folder on rank 0; its error is raised on every rank, so that none waits for it."""
    from depthray import distributed

    result: Recipe | DepthrayError | None = None
    if distributed.is_main():
        try:
            result = prepare_run(run, recipe, args)
        except DepthrayError as error:
            result = error
    result = distributed.broadcast(result)
    if isinstance(result, DepthrayError):
        raise result
    assert result, "rank 0 has sent a recipe or its error"
    return result


def prepare_run(
    run: Path | str, recipe: Recipe, args: argparse.Namespace, *, log: Callable[[str], None] | None = None
) -> Recipe:
    """Prepare the run's folder, after all checks. Returns the recipe to train, fitted to the number of frames."""
    from depthray.runs.new_run import given_keys, prepare_checked

    workers = int(os.environ.get("WORLD_SIZE", args.workers))  # torchrun's
    given = given_keys(args.recipe, args.overrides) if args.recipe else KEYS  # a run that resumes keeps its values
    saved = _recipe_to_resume(args)
    places = [str(path) for path in (*recipe.data.roots, run) if path and is_remote(path)]
    with Heartbeat(" and ".join(["network and frames to be checked", *(f"{place} to answer" for place in places)])):
        return prepare_checked(
            run,
            recipe,
            resume=args.resume,
            given=given,
            saved=saved,
            workers=workers,
            log=log or (lambda text: print(text, flush=True)),
        )


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
    print_markdown(f"\n{table}")
