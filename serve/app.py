"""The Ray Serve application: `Ingress` speaks HTTP, `Depth` computes; each is multiplied on its own.

depthray serve runs/x
serve run serve.app:build checkpoint=runs/x
serve deploy serve/config.yaml
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.handle import DeploymentHandle

from depthray.config.overrides import apply_word
from depthray.errors import UsageError
from serve import settings as settings_of
from serve.http import auth
from serve.http.exposed import refuse_open
from serve.http.gate import Gate
from serve.monitoring.telemetry import Metered, MeteredDepth
from serve.registry.store import Store
from serve.settings import Limits, Replicas, Settings

DEPTH, INGRESS = "Depth", "Ingress"
SPARE = 256  # requests beyond those in work: still arriving, being refused, or asking for health and pages
# What replicas find in their environment. Pictures and maps come and go: glibc, left alone, asks the kernel for each
# and gives it back, and the clearing of pages takes a tenth of a forward pass and a third of the rest. Above 32 MiB it
# still does.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
# The ingress has the same cores. A thread of a forward pass that waits for another one must leave them to it, and not
# turn round in a loop, which costs several times the pass as soon as there is more to do than cores.
PASSES = {"OMP_WAIT_POLICY": "PASSIVE"}
DRAIN = 30.0  # seconds for requests under way when a replica is stopped


class Replica(MeteredDepth):
    """A replica of the networks. One that can no longer answer dies, so that its requests go to others at once."""

    def give_up(self) -> None:
        """See `Depth.give_up`. A health check would need 15 s, and till then the quickest answers would be wrong."""
        logging.shutdown()
        os._exit(1)


class Ingress:
    """What a replica of the ingress is besides its ASGI application."""

    app: Gate  # set by what Serve puts around this class

    def __init__(self, depth: DeploymentHandle[Any]) -> None:
        self.depth = depth

    async def close(self) -> int:
        """Take nothing new. Returns how many requests that came before are still to be answered."""
        return self.app.close()


def build(args: Mapping[str, Any]) -> Application:
    """The application of settings, given as a tree or as dotted words; `checkpoint` is promoted first if given."""
    tree: dict[str, Any] = {}
    for key, value in args.items():
        if isinstance(value, str):
            apply_word(tree, f"{key}={value}")
        else:
            tree[key] = value
    checkpoint, name = tree.pop("checkpoint", None), tree.pop("name", "depth")
    settings = settings_of.parse(tree, where="arguments of serve.app:build")
    if checkpoint:
        from serve.registry.promotion import promote

        promote(Store(settings.store), str(name), Path(checkpoint))
    return bind(settings)


def bind(settings: Settings) -> Application:
    """The application of checked settings."""
    settings = settings.model_copy(update={"store": settings.store.resolve()})
    if not Store(settings.store).names():
        raise UsageError(f"{settings.store}: no model to serve; put one there with depthray serve promote RUN")
    auth.load(settings.keys_file)  # else each replica would try in vain, again and again
    return _ingress(settings, _depth(settings))


def _depth(settings: Settings) -> Application:
    model, replicas = settings.model, settings.model_replicas
    deploy = serve.deployment(
        name=DEPTH,
        max_ongoing_requests=max(2 * model.max_batch, replicas.ongoing),
        max_queued_requests=settings.queued,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=DRAIN,
        max_constructor_retry_count=3,
        max_surge_percent=100,  # the new one answers before the old one goes
        ray_actor_options={
            "num_cpus": replicas.cpus,
            "num_gpus": _gpus(settings),
            "runtime_env": {"env_vars": MEMORY | PASSES},
        },
        **_copies(replicas),
    )
    return deploy(Replica).bind(settings.model_dump(mode="json"))


def _ingress(settings: Settings, depth: Application) -> Application:
    replicas = settings.ingress_replicas
    deploy = serve.deployment(
        name=INGRESS,
        max_ongoing_requests=settings.queued + SPARE,
        max_queued_requests=SPARE,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=DRAIN,
        max_constructor_retry_count=3,
        max_surge_percent=100,  # the new one answers before the old one goes
        ray_actor_options={"num_cpus": replicas.cpus, "runtime_env": {"env_vars": MEMORY | _decoders(settings.limits)}},
        **_copies(replicas),
    )
    wrapped = serve.ingress(_application(settings.model_dump(mode="json")))(Ingress)
    return deploy(wrapped).bind(depth)


def _gpus(settings: Settings) -> float:
    """Of each replica: as told, or what there is in equal parts, whole GPUs where there are enough."""
    if settings.model.gpus is not None or settings.model.device.startswith("cpu"):
        return settings.model.gpus or 0.0
    there = ray.cluster_resources().get("GPU", 0.0) if ray.is_initialized() else 0.0
    return min(1.0, int(1000 * there / settings.model_replicas.max) / 1000)


def _decoders(limits: Limits) -> dict[str, str]:
    """What bounds OpenCV's decoders even where a check of ours were missing; read when it is loaded."""
    most = {"PIXELS": limits.pixels, "WIDTH": limits.side, "HEIGHT": limits.side}
    return {f"OPENCV_IO_MAX_IMAGE_{name}": str(number) for name, number in most.items()}


def _copies(replicas: Replicas) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.max}
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        max_replicas=replicas.max,
        target_ongoing_requests=replicas.ongoing,
        upscale_delay_s=replicas.upscale_seconds,
        downscale_delay_s=replicas.downscale_seconds,
        look_back_period_s=max(11.0, replicas.upscale_seconds),
    )
    return {"autoscaling_config": scaling}


def _application(tree: dict[str, Any]) -> Callable[[], Any]:
    """The maker of the ASGI application, called in each replica of the ingress."""

    def application() -> Any:
        import torch

        from serve.http import routes
        from serve.monitoring.scrape import Scrape
        from serve.replica.router import Relay

        torch.set_num_threads(1)  # the networks need the cores
        settings = settings_of.parse(tree)
        _refuse_open(settings)
        app = routes.create(Relay(serve.get_deployment_handle(DEPTH), settings), settings, scrape=Scrape())
        return Gate(Metered(app), most=settings.queued)

    return application


def _refuse_open(settings: Settings) -> None:
    """Whatever started Serve: without keys it answers on this machine alone, unless told otherwise."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    refuse_open(settings, client.http_config.host)
