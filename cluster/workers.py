"""Ray Train's TorchTrainer around `depthray.runs.run.record`, with lost workers replaced.

Each Ray worker runs `work`. Checkpoints are committed by the loop itself into the run's folder, complete or invisible,
and a restarted group of workers finds the newest good one there; the metrics of each epoch are reported to Ray.
Ray's `prepare_data_loader` is not used: its DistributedSampler repeats validation frames, which changes metrics.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import elastic
from cluster.rendezvous import check_shared, marker_file, raise_reported_error, report_error
from cluster.resources import Workers, resources_per_worker
from depthray.config import own_code
from depthray.config.ray_environment import NO_GPU
from depthray.config.sections import Recipe
from depthray.errors import DepthrayError
from depthray.runs import layout, progress
from depthray.storage.remote import is_remote

STORAGE_VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "DEPTHRAY_STORAGE_PATIENCE",
    "DEPTHRAY_LOG",
)
# A group that may shrink should not wait a minute for the node that it lost; and a resize costs a restart, some 20 s.
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}
RESIZE_SECONDS = 30.0  # between looks for nodes that have joined


def fit_on_workers(recipe: Recipe, run: Path | str, workers: Workers, *, callbacks: Sequence[Any] = ()) -> None:
    """Train into a prepared run on workers of the cluster this process is connected to.

    `callbacks` are of `ray.train.UserCallback`; their `after_report` gets the metrics of each epoch.
    Raises the DepthrayError that ended training, ResourceError where the cluster has too few CPUs or GPUs.
    """
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from cluster.scaling_policy import ElasticTrainer, SigtermCallback

    # A new name each time: Ray silently restores its own state of a name used before; our checkpoints are safer.
    name = f"attempt-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}-{os.getpid()}"
    config = {
        "recipe": recipe.model_dump(mode="json"),
        "code": own_code.share(),
        "run": str(run),
        "gpu": workers.gpus > 0,
        "attempt": name,
        # Settings of the store; its credentials are those of the worker's machine.
        "environment": {key: os.environ[key] for key in STORAGE_VARIABLES if key in os.environ},
    }
    there = ray.cluster_resources()
    resources = resources_per_worker(there, workers)
    # A worker that reserved no GPU would see all of its node. Where there is none, the variable would delay its start.
    hidden = NO_GPU if there.get("GPU") and not workers.gpus else {}
    config["cpus"] = resources["CPU"]
    if workers.sizes:
        for key, value in ELASTIC_SETTINGS.items():
            os.environ.setdefault(key, value)
    trainer = ElasticTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(timeout_s=int(60 * workers.timeout_minutes)),
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # mypy sees the classes of the older API
            num_workers=(workers.least, workers.count) if workers.sizes else workers.count,  # type: ignore[arg-type]
            use_gpu=workers.gpus > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=str(_ray_storage_path(run)),
            worker_runtime_env={"env_vars": hidden} if hidden else None,
            failure_config=FailureConfig(max_failures=workers.max_failures),  # Ray's default is none
            callbacks=[SigtermCallback(), *callbacks],  # type: ignore[list-item]
            logging_config=LoggingConfig(log_level="ERROR"),  # else each report is a line of Ray's own
        ),
    )
    trainer.sizes = workers.sizes
    with marker_file(run, name):
        _fit(trainer, run, name)


def _ray_storage_path(run: Path | str) -> Path:
    """Where Ray keeps its state of an attempt. We need none of it, so it is not written to a store, which may fail."""
    return Path(tempfile.gettempdir(), f"depthray-ray-{os.getuid()}") if is_remote(run) else Path(run, layout.RAY)


def _fit(trainer: Any, run: Path | str, attempt: str) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    try:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise_reported_error(attempt)
            reason = str(error).strip().splitlines()[-1]
            raise DepthrayError(
                f"training failed: {reason}; the checkpoints in {run} are intact, resume with --resume"
            ) from error
        raise_reported_error(attempt)
    except DepthrayError as error:
        # Rank 0 records its own failures. Those of other workers it does not see, and a killed one records none.
        with suppress(DepthrayError, OSError):
            progress.record_failure(run, str(error))
        raise


def work(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs: the loop, with every epoch reported to Ray."""
    os.environ.update(config["environment"])
    try:
        check_shared(config["run"], config["attempt"])
        _work(config, config["run"])
    except DepthrayError as error:
        report_error(config["attempt"], error)
        raise


def _work(config: dict[str, Any], run: str) -> None:
    import ray.train

    from depthray import distributed
    from depthray.data.loader_processes import WORKER_CPUS
    from depthray.runs.run import record

    own_code.receive(config["code"])
    os.environ[WORKER_CPUS] = str(config["cpus"])
    recipe = Recipe.model_validate(config["recipe"])
    device = distributed.start(gpu=config["gpu"])
    watch = elastic.WorkerWatch(config["attempt"], run, main=distributed.is_main())
    for epoch in record(recipe, run, device, hooks=watch.hooks()):
        ray.train.report({**epoch.metrics, "epoch": epoch.number, "ended": bool(epoch.ended)})
