"""The Ray Serve application: deployment `Ingress` answers HTTP, deployment `Depth` computes; each scales on its own.

depthray serve runs/x
serve run serve.app:build checkpoint=runs/x
serve deploy serve/config.yaml
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.handle import DeploymentHandle

from depthray.config.overrides import apply_override
from depthray.config.ray_environment import NO_GPU, gpu_slots
from depthray.errors import ResourceError, UsageError
from serve import process_environment
from serve import settings as settings_of
from serve.http import auth
from serve.http.middleware import ConcurrencyLimit
from serve.monitoring.telemetry import RayMetrics, RequestMetrics
from serve.ray_private import http_host
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica.replica import Replica
from serve.settings import ReplicaSettings, RequestLimits, Settings

DEPTH, INGRESS = "Depth", "Ingress"
SPARE_REQUESTS = 256  # beyond the ongoing ones: still arriving, being refused, or for health and pages
DRAIN_SECONDS = 30.0  # for ongoing requests when a replica is stopped


class DepthDeployment(Replica):
    """A replica as Ray Serve starts it: it reports to Prometheus, and exits when it can no longer answer."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings, metrics=RayMetrics(), give_up=_exit_replica)


def _exit_replica() -> None:
    """End the process, so that Serve sends its requests to other replicas at once.

    A failed health check would take 15 s, in which the broken replica, being the fastest, would get most requests.
    """
    logging.shutdown()  # os._exit skips it, and the log would lack the reason
    os._exit(1)


class Ingress:
    """The methods of an ingress replica besides its ASGI application."""

    app: ConcurrencyLimit  # set by the class that `serve.ingress` wraps around this one

    def __init__(self, depth: DeploymentHandle[Any]) -> None:
        self.depth = depth

    async def close(self) -> int:
        """Refuse new requests. Returns how many earlier ones are still to be answered."""
        return self.app.close()


def build(args: Mapping[str, Any]) -> Application:
    """The application of settings, a tree or dotted overrides. A `checkpoint` among them is promoted first."""
    tree: dict[str, Any] = {}
    for key, value in args.items():
        # `serve run` passes overrides as text, a file for `serve deploy` the tree itself.
        if isinstance(value, str):
            apply_override(tree, f"{key}={value}")
        else:
            tree[key] = value
    checkpoint, name = tree.pop("checkpoint", None), tree.pop("name", "depth")
    settings = settings_of.parse(tree, where="arguments of serve.app:build")
    if checkpoint:
        promote(Store(settings.store), str(name), Path(checkpoint), trust=settings.model.trust)
    return bind(settings)


def bind(settings: Settings) -> Application:
    """The application of validated settings."""
    settings = settings.model_copy(update={"store": settings.store.resolve()})  # replicas run in other folders
    if not Store(settings.store).names():
        raise UsageError(f"{settings.store}: no model to serve; add one with depthray serve promote RUN")
    auth.load(settings.keys_file)  # a mistake in the file is reported here, once, rather than by replicas that restart
    return _ingress(settings, _depth(settings))


def _depth(settings: Settings) -> Application:
    model, replicas = settings.model, settings.model_replicas
    gpus = _gpus(settings)
    # Ray hides GPUs from a process only where it reserves some of them: without these two, every replica would take
    # the first GPU of its node.
    device = model.device or ("" if gpus else "cpu")
    settings = settings.model_copy(update={"model": model.model_copy(update={"device": device})})
    deploy = serve.deployment(
        name=DEPTH,
        # A batch and the one that gathers meanwhile: with Serve's default of 5 no batch would ever be full. And its
        # share of all that are admitted: Serve tries again for up to a second where a replica has no room, with cores
        # that are idle.
        max_ongoing_requests=max(2 * model.max_batch, replicas.ongoing, math.ceil(settings.queued / replicas.max)),
        max_queued_requests=settings.queued,  # Serve's default has no bound
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        max_constructor_retry_count=3,  # not 20 times, as by default: what cannot be loaded should fail soon
        max_surge_percent=_surge_percent(gpus, replicas),
        ray_actor_options={
            "num_cpus": replicas.cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": process_environment.REPLICA | ({} if gpus else NO_GPU)},
        },
        **_scaling(replicas),
    )
    return deploy(DepthDeployment).bind(settings.model_dump(mode="json"))


def _ingress(settings: Settings, depth: Application) -> Application:
    replicas = settings.ingress_replicas
    deploy = serve.deployment(
        name=INGRESS,
        max_ongoing_requests=settings.queued + SPARE_REQUESTS,
        max_queued_requests=SPARE_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        max_constructor_retry_count=3,
        max_surge_percent=100,  # the new one answers before the old one goes
        ray_actor_options={
            "num_cpus": replicas.cpus,
            "runtime_env": {"env_vars": process_environment.REPLICA | NO_GPU | _decoder_environment(settings.limits)},
        },
        **_scaling(replicas),
    )
    wrapped = serve.ingress(_application(settings.model_dump(mode="json")))(Ingress)
    return deploy(wrapped).bind(depth)


def _gpus(settings: Settings) -> float:
    """GPUs of each replica: as set, or an equal share of the cluster's, whole GPUs where there are enough.

    A share is one of n equal parts of a GPU: Ray places a fraction on one GPU, so of two GPUs in shares of 0.66 the
    third replica would find none. Raises ResourceError where the settings require a GPU and the cluster has none.
    """
    model = settings.model
    if model.gpus is not None or model.device.startswith("cpu"):
        return model.gpus or 0.0
    total = _cluster_gpus()
    if not total:
        if model.device.startswith("cuda"):
            raise ResourceError(f"model.device={model.device}: the cluster has no GPU; depthray doctor shows why")
        return 0.0
    replicas_of_each = math.ceil(settings.model_replicas.max / total)
    return math.floor(10_000 / replicas_of_each) / 10_000  # Ray counts in parts of 10,000


def _cluster_gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0.0)) if ray.is_initialized() else 0


def _surge_percent(gpus: float, replicas: ReplicaSettings) -> int:
    """100: a new replica answers before the old one goes; 0, where GPUs are too few for both: after it, with a gap."""
    if not gpus:
        return 100
    # With a surge that no GPU is left for, a deployment would wait for ever.
    return 100 if gpu_slots(_cluster_gpus(), gpus) >= 2 * replicas.max else 0


def _decoder_environment(limits: RequestLimits) -> dict[str, str]:
    """The limits of OpenCV's decoders, a second line behind our own checks; OpenCV reads them when it is loaded."""
    most = {"PIXELS": limits.pixels, "WIDTH": limits.side, "HEIGHT": limits.side}
    return {f"OPENCV_IO_MAX_IMAGE_{name}": str(number) for name, number in most.items()}


def _scaling(replicas: ReplicaSettings) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.max}
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        max_replicas=replicas.max,
        target_ongoing_requests=replicas.ongoing,
        upscale_delay_s=replicas.upscale_seconds,
        downscale_delay_s=replicas.downscale_seconds,
        look_back_period_s=max(11.0, replicas.upscale_seconds),  # Serve warns of 10 s and less
    )
    return {"autoscaling_config": scaling}


def _application(tree: dict[str, Any]) -> Callable[[], Any]:
    """The function that creates the ASGI application, called in each replica of the ingress."""

    def application() -> Any:
        import torch

        # Heavy, and needed in replicas of the ingress alone.
        from serve.http import routes
        from serve.monitoring.scrape import MetricsPage
        from serve.replica.router import Router

        torch.set_num_threads(1)  # the networks need the cores
        settings = settings_of.parse(tree)
        auth.require_keys(settings, http_host())
        app = routes.create(Router(serve.get_deployment_handle(DEPTH), settings), settings, metrics_page=MetricsPage())
        return ConcurrencyLimit(RequestMetrics(app), max_requests=settings.queued)

    return application
