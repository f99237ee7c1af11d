"""`depthray train` on Ray workers: `depthray.cli.train` parses the command line, `cluster.workers` trains."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cluster.resources import Workers, unused_gpus, wait_for_resources
from cluster.session import ray_cluster
from cluster.workers import fit_on_workers
from depthray.cli import train as command
from depthray.config.sections import Recipe
from depthray.errors import count_of
from depthray.runs import console
from depthray.training import preflight


def main(argv: list[str]) -> int:
    """Train a recipe on Ray, or in this process with --local, and print where its checkpoint is."""
    return command.main(argv, train_on_ray)


def train_on_ray(recipe: Recipe, run: Path | str, args: argparse.Namespace) -> bool:
    """Train on Ray workers, replacing lost workers. Returns whether training ran to its end."""
    from depthray.runs.control import is_stop_requested, stop_on_signals

    stop_on_signals(run, lambda text: print(text, file=sys.stderr))
    # The workers write progress into the run's folder; this process only prints it.
    workers, number = _workers(recipe, args), count_of(args.workers, "worker")
    place = f"the Ray cluster at {args.address}" if args.address else "Ray on this machine"
    print(f"{'connecting to' if args.address else 'starting'} {place} for {number}", flush=True)
    if note := crowding(args.workers, cpus=os.cpu_count() or 1, address=args.address):
        print(note, flush=True)
    display = console.Display(awaited=f"{place} to {'answer' if args.address else 'start'}")
    try:
        with ray_cluster(args.address, workers=args.workers), console.Follower(run, display.show):
            _note_unused_gpus(workers)
            display.await_next(f"{number} to start: each loads PyTorch, the network and the list of frames")
            if args.address:  # a local cluster is made with enough CPUs and never grows
                wait_for_resources(workers, lambda text: print(text, flush=True), minutes=args.wait)
            fit_on_workers(recipe, run, workers)
    finally:
        display.close()
    return not is_stop_requested(run)


def _note_unused_gpus(workers: Workers) -> None:
    import ray  # only now: it reads its settings from the environment when it is imported, and `ray_cluster` sets them

    if note := unused_gpus(ray.cluster_resources(), requested=workers.gpus, flag="--gpu"):
        print(note, flush=True)


def crowding(workers: int, *, cpus: int, address: str | None) -> str:
    """A line for more workers than this machine, on which they will run, has CPUs; "" where they have one each."""
    if address or workers <= cpus:
        return ""
    return f"note: {workers} workers share {count_of(cpus, 'CPU')}, and so are slower than {cpus} would be"


def _workers(recipe: Recipe, args: argparse.Namespace) -> Workers:
    sizes: tuple[int, ...] = ()
    if args.min_workers:
        sizes = tuple(preflight.worker_counts(recipe, least=args.min_workers, most=args.workers))
    timeout = command.timeout_minutes(args)
    return Workers(args.workers, args.cpus_per_worker, float(args.gpu), args.max_failures, sizes, timeout)
