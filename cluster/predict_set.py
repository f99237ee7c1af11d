"""`depthray predict`: images as in the library, and data sets also by Ray's workers, whose tasks are parts of them.

One worker is this process, without Ray. A worker opens data set and network once and then predicts complete parts; what
is written does not depend on which worker predicts which part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cluster import part_workers
from cluster.part_workers import PartOutcome
from cluster.session import ray_cluster
from depthray.cli import predict as command
from depthray.cli.predicting import predict_flags, whole_sets
from depthray.config import own_code
from depthray.config.own_code import SharedCode

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    from depthray.data.source import Source
    from depthray.predict import Predictor
    from depthray.predicted_sets.set_plan import SetPlan


class SharedPlan(NamedTuple):
    """What all workers need."""

    plan: SetPlan
    code: SharedCode


def main(argv: list[str]) -> int:
    """Predict images, or a data set, and print where the files are."""
    arguments = predict_flags.parse_arguments(argv)
    if not arguments.data or (arguments.workers or 1) == 1:  # starting Ray takes longer than many predictions
        return command.main(argv)
    from depthray.predicted_sets import set_parts, set_plan

    source, plan = set_plan.prepare(command.request_of_set(arguments))
    with set_parts.begun(plan) as parts, whole_sets.progress(plan, source) as advance:
        advance(plan.total - sum(len(plan.frames(number)) for number in parts))
        if parts:
            with ray_cluster(arguments.address, workers=arguments.workers):
                predict_on_ray(plan, parts, workers=arguments.workers, advance=advance)
    return whole_sets.print_summary(plan, set_parts.finish(plan))


def predict_on_ray(plan: SetPlan, parts: list[int], *, workers: int, advance: Callable[[int], None]) -> None:
    """Predict parts of a data set, one a worker at a time. GPUs of the cluster are shared among the workers."""
    part_workers.deal_parts(
        predict_part_task,
        SharedPlan(plan, own_code.share()),
        parts,
        workers=workers,
        done=lambda number, _: advance(len(plan.frames(number))),
        gpus=gpu_share(workers) if plan.request.device != "cpu" else 0.0,
    )


def gpu_share(workers: int) -> float:
    """The part of a GPU that each worker takes, so that all run at once; 0 on a cluster without GPUs."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    return 1 / math.ceil(workers / gpus) if gpus else 0.0


def predict_part_task(shared: SharedPlan, number: int) -> PartOutcome:
    """Predict a part on a worker -> the number of its frames that failed."""
    own_code.receive(shared.code)
    return part_workers.outcome_of(lambda: _predict(shared.plan, number))


def _predict(plan: SetPlan, number: int) -> int:
    from depthray.predicted_sets import set_parts

    source, predictor = _open(_Opened(plan))
    return set_parts.predict_part(plan, number, source, predictor)


class _Opened:
    """A plan as the key of a cache: plans are equal where their requests are."""

    def __init__(self, plan: SetPlan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return hash(self.plan.request)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opened) and self.plan == other.plan


@lru_cache(maxsize=1)
def _open(key: _Opened) -> tuple[Source, Predictor]:
    """Data set and network, opened once in each worker; the driver has checked that they fit."""
    import cv2

    from depthray.data import sources
    from depthray.predicted_sets import set_plan

    cv2.setNumThreads(0)  # the workers are the parallelism
    return sources.open_source(key.plan.section, verify=False), set_plan.open_network(key.plan)
