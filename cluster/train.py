"""`depthray train`: Ray Train's TorchTrainer around `depthray.run.record`, or the same loop in this process.

Each Ray worker runs `work`. Checkpoints are committed by the loop itself into the run's folder, complete or invisible,
and a restarted group of workers finds the newest good one there; Ray is told the metrics of each epoch.
Ray's `prepare_data_loader` is not used: its DistributedSampler repeats validation frames, which changes metrics.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthray import progress
from depthray import recipe as recipes
from depthray.errors import DepthrayError, ResourceError, UsageError
from depthray.sections import Recipe

ERROR = "error.json"
# Driver and workers read these when Ray is imported. Start-up steps and reports wait for the controller's poll, 2 s
# unless told; Ray's print patch doubles lines.
RAY_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}

# A few workers on this machine can be asked often, and nobody preempts them.
LOCAL_SETTINGS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


@dataclass(frozen=True)
class Workers:
    """What training runs on: equal workers, replaced when they are lost."""

    count: int = 1
    cpus: int | None = None  # a worker; None = an equal share of the cluster
    gpus: float = 0.0  # a worker
    max_failures: int = 8


def main(argv: list[str]) -> int:
    """Train a recipe and say where its checkpoint lies."""
    args = _parser().parse_intermixed_args(argv)
    recipe = _recipe(args)
    run = _run_folder(args)
    if args.local or "RANK" in os.environ:  # torchrun's own parser stumbles over the word --local
        finished = train_local(recipe, run, gpu=args.gpu or None, resume=args.resume)
    else:
        _prepare(run, recipe, resume=args.resume)  # the user's mistakes show before a cluster is started
        finished = train_on_ray(recipe, run, args)
    if int(os.environ.get("RANK", "0")) == 0:
        _farewell(run, finished)
    return 0 if finished else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray train", description="Train a recipe. Dotted words change numbers: optim.lr=3e-4 train.epochs=5"
    )
    parser.add_argument("recipe", nargs="?", default="", help="name of a recipe or path of its YAML file")
    parser.add_argument("words", nargs="*", help="section.key=value")
    parser.add_argument("--data", metavar="PATH", help="where the data lies (data.root)")
    parser.add_argument("--out", metavar="RUN", type=Path, help="the run's folder (default: runs/RECIPE-DATE)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--workers", type=int, default=1, help="training processes (default: 1)")
    parser.add_argument("--gpu", action="store_true", help="one GPU a worker")
    parser.add_argument("--cpus-per-worker", type=int, metavar="N", help="CPUs a worker (default: an equal share)")
    parser.add_argument("--address", help="a running Ray cluster (default: a local one, started and stopped)")
    parser.add_argument("--max-failures", type=int, default=8, metavar="N", help="lost workers replaced (default: 8)")
    parser.add_argument("--local", action="store_true", help="in this process, without Ray (implied under torchrun)")
    return parser


def _recipe(args: argparse.Namespace) -> Recipe:
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers}: at least 1 is needed")
    if args.local and args.workers > 1:
        raise UsageError(f"--local is one process; leave out --workers {args.workers}, or use torchrun")
    if args.recipe and "=" in args.recipe:
        args.words, args.recipe = [args.recipe, *args.words], ""
    if args.resume and not args.out:
        raise UsageError("--resume needs --out RUN, the folder of the run to go on with")
    if not args.recipe and not args.resume:
        raise UsageError(f"which recipe? choose from: {', '.join(recipes.names())}; or a path to a YAML file")
    if args.resume and not (args.out / "recipe.yaml").is_file():
        raise UsageError(f"--resume: {args.out} holds no run (no recipe.yaml there)")
    words = [*args.words, *([f"data.root={os.path.realpath(args.data)}"] if args.data else [])]
    recipe = recipes.absolute(recipes.load(args.recipe or str(args.out / "recipe.yaml"), words))
    if recipe.train.batch_size % (args.workers * recipe.train.accumulate):
        raise UsageError(
            f"train.batch_size={recipe.train.batch_size} is the global batch and must divide by "
            f"--workers {args.workers} x train.accumulate={recipe.train.accumulate}"
        )
    return recipe


def _run_folder(args: argparse.Namespace) -> Path:
    if args.out:
        return Path(os.path.realpath(args.out))  # unlike resolve, it leaves a loop of links to be met on writing
    return Path("runs", f"{Path(args.recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()


def train_local(recipe: Recipe, run: Path, *, gpu: bool | None, resume: bool) -> bool:
    """Train in this process, one of several under torchrun, on a GPU if there is one; whether it ran to its end."""
    from depthray import distributed
    from depthray.run import STOP, record, stop_on_signals

    device = distributed.start(gpu=gpu)
    run = distributed.broadcast(run)
    _prepare_once(run, recipe, resume=resume)
    display = progress.Display() if distributed.is_main() else None
    stop_on_signals(run, lambda text: print(text, file=sys.stderr))
    try:
        for _ in record(recipe, run, device, show=display.show if display else lambda _: None):
            pass
    finally:
        if display:
            display.close()
        distributed.stop()
    return not (run / STOP).exists()


def _prepare_once(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Prepare the run's folder on rank 0; a mistake found there is raised on every rank, so that none waits."""
    from depthray import distributed

    mistake: DepthrayError | None = None
    if distributed.is_main():
        try:
            _prepare(run, recipe, resume=resume)
        except DepthrayError as error:
            mistake = error
    if mistake := distributed.broadcast(mistake):
        raise mistake


def _prepare(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Prepare the run's folder, last: after a mistake in data or model the same command can be given again."""
    from depthray.data.frames import Frames
    from depthray.run import check_model, prepare

    check_model(recipe, pretrained=not resume)
    Frames.open(recipe)
    prepare(run, recipe, resume=resume)


def train_on_ray(recipe: Recipe, run: Path, args: argparse.Namespace) -> bool:
    """Train on Ray workers, lost ones replaced; whether it ran to its end."""
    from depthray.run import STOP, stop_on_signals

    stop_on_signals(run, lambda text: print(text, file=sys.stderr))
    display = progress.Display()
    try:
        with ray_cluster(args.address, workers=args.workers), progress.Follower(run, display.show):
            fit_on_workers(recipe, run, Workers(args.workers, args.cpus_per_worker, float(args.gpu), args.max_failures))
    finally:
        display.close()
    return not (run / STOP).exists()


@contextmanager
def ray_cluster(address: str | None, *, workers: int, dashboard: bool = False) -> Iterator[None]:
    """A connection to the cluster at an address, or a local one that lives as long as the context."""
    for key, value in {**RAY_SETTINGS, **({} if address else LOCAL_SETTINGS)}.items():
        os.environ.setdefault(key, value)
    if not address:
        _lock()
    import ray

    if ray.is_initialized():  # by the program that calls us, which will also end it
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address:
        ray.init(address=address, **quiet)
    else:
        cpus = max(os.cpu_count() or 1, workers)
        ray.init("local", num_cpus=cpus, include_dashboard=dashboard, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _lock() -> None:
    """Let only this process tree talk to the local cluster; Ray itself would leave a token file in the home folder."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def fit_on_workers(recipe: Recipe, run: Path, workers: Workers) -> None:
    """Train into a prepared run on workers of the cluster this process is connected to.

    Raises the DepthrayError that ended training, ResourceError where the cluster has too few CPUs or GPUs.
    """
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    class Trainer(TorchTrainer):
        """TorchTrainer that leaves Ctrl-C to us: Ray's handler would end the run without a checkpoint."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

    (run / ERROR).unlink(missing_ok=True)
    resources = _resources_per_worker(ray.cluster_resources(), workers)
    trainer = Trainer(
        work,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "run": str(run), "gpu": workers.gpus > 0},
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees the class of the older API
            # A new name each time: Ray silently takes up its own record of a name used before; ours is the safe one.
            name=f"attempt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(run / "ray"),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        _raise_known(run)
        reason = str(error).strip().splitlines()[-1]
        raise DepthrayError(
            f"training failed: {reason}; the checkpoints in {run} are intact, go on with --resume"
        ) from error
    _raise_known(run)


def _resources_per_worker(have: dict[str, float], workers: Workers) -> dict[str, float]:
    """CPUs and GPUs each worker gets. Raises ResourceError where the cluster has too few."""
    cpus, gpus, count = int(have.get("CPU", 0)), int(have.get("GPU", 0)), workers.count
    each = workers.cpus or max(1, cpus // count)
    if each * count > cpus:
        raise ResourceError(f"{count} workers x {each} CPUs were asked for, the cluster has {cpus} CPUs")
    if workers.gpus * count > gpus:
        raise ResourceError(f"{count} workers x {workers.gpus:g} GPUs were asked for, the cluster has {gpus} GPUs")
    return {"CPU": each, **({"GPU": workers.gpus} if workers.gpus else {})}


def work(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs: the loop, with every epoch reported to Ray."""
    run = Path(config["run"])
    if (run / ERROR).exists():
        return  # the group was restarted after a mistake that would repeat itself; the driver reports it
    try:
        _work(config, run)
    except DepthrayError as error:
        (run / ERROR).write_text(json.dumps({"exit_code": error.exit_code, "text": str(error)}), encoding="utf-8")
        raise


def _work(config: dict[str, Any], run: Path) -> None:
    import ray.train

    from depthray import distributed
    from depthray.run import record

    recipe = Recipe.model_validate(config["recipe"])
    device = distributed.start(gpu=config["gpu"])
    for epoch in record(recipe, run, device):
        ray.train.report({**epoch.metrics, "epoch": epoch.number})


def _raise_known(run: Path) -> None:
    """Raise the user's error that a worker left behind."""
    if (run / ERROR).exists():
        found = json.loads((run / ERROR).read_text(encoding="utf-8"))
        error = DepthrayError(found["text"])
        error.exit_code = found["exit_code"]
        raise error


def _farewell(run: Path, finished: bool) -> None:
    from depthray.progress import TOLD
    from depthray.run import scores_of, summary

    best, found = summary(run)
    scores = scores_of(found)
    told = [key for key in TOLD if key in scores] or list(scores)  # some protocols have scores of their own only
    scored = ", ".join(f"{key} {scores[key]:.4f}" for key in told)
    here = Path.cwd()

    def show(path: Path) -> Path:
        return path.relative_to(here) if path.is_relative_to(here) else path

    print(f"checkpoint   {show(best)}  ({scored or 'not validated yet'})")
    print(f"tensorboard  tensorboard --logdir {show(run / 'tensorboard')}")
    if finished:
        print(f"next         depthray predict {show(best)} IMAGE")
    else:
        print(f"stopped      go on with: depthray train --out {show(run)} --resume")
