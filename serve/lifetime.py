"""The life of a service: a Ray cluster, the application on it, and a shutdown that answers all ongoing requests."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

from depthray.config import shadowed_packages
from depthray.config.ray_environment import gpu_slots, prepare_environment, start_local
from depthray.errors import DepthrayError, ResourceError, UsageError
from depthray.waiting import Heartbeat
from serve import process_environment
from serve.proxy import admission
from serve.settings import Settings

APPLICATION = "depth"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PROXY_GRACE = 15.0  # seconds beyond the longest request until Serve's own 408
CHECK_PERIOD, MAX_MISSED_CHECKS = 2.0, 3  # seconds between checks that Ray is alive, and how many may fail in a row
ANNOUNCE_SECONDS = 1.0  # between two lines on what a start waits for
FLUSH_SECONDS = 0.3  # for the last answers on their way through Serve's proxy


def run(settings: Settings, host: str, port: int, *, address: str | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer the ongoing requests and end."""
    os.environ[admission.VARIABLE] = admission.encode_limits(settings)
    with _restore_signals(), _cluster(address, settings) as is_ours:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # once Ray is up, which installs a handler of its own
        ingress = None
        try:
            if is_ours:
                _check_gpus(settings)
            else:
                _check_not_served()
            ingress = _start(settings, host, port)
            _print_addresses(host, port)
            _wait_for_signal()
        finally:
            with suppress(KeyboardInterrupt), redirect_stderr(io.StringIO()):  # Ray warns of the processes that we end
                _drain(ingress)
                if not is_ours:
                    _delete_application()
            for number in SIGNALS:  # stopping Ray takes a second, and interrupted it would leave processes behind
                signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # else the interpreter collects all of torch and Ray once more before it ends, for seconds
    return 0


@contextmanager
def _restore_signals() -> Iterator[None]:
    """Restore the signal handlers afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _check_gpus(settings: Settings) -> None:
    """ResourceError if there are too few GPUs, for which Serve would wait for ever."""
    import ray

    requested, total = settings.model.gpus or 0.0, ray.cluster_resources().get("GPU", 0.0)
    if requested and gpu_slots(total, requested) < max(1, settings.model_replicas.min):
        raise ResourceError(
            f"--gpu, model.gpus={requested:g}: too few GPUs, Ray sees {total:g} here; depthray doctor shows why"
        )


def _check_not_served() -> None:
    """UsageError if the cluster serves an application of our name, which we would replace and end with ours."""
    from ray import serve

    if APPLICATION in serve.status().applications:
        raise UsageError(
            f"this cluster serves '{APPLICATION}' already; change it with depthray serve promote or serve deploy, "
            "or end it first"
        )


def _wait_for_signal() -> None:
    """Wait for a signal; a second one, while requests are answered, ends at once. ResourceError if Ray has died."""
    missed = 0
    try:
        while missed < MAX_MISSED_CHECKS:
            time.sleep(CHECK_PERIOD)
            missed = 0 if _is_alive() else missed + 1
    except KeyboardInterrupt:
        print("stopping    answering ongoing requests; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        return
    raise ResourceError("Ray has died under the service (a process of its head node); start it again")


def _is_alive() -> bool:
    """Whether the cluster answers and has a node left."""
    import ray

    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception:  # Ray raises many kinds once its server has died
        return False


def _drain(ingress: Any) -> None:
    """Refuse new requests and wait for the ongoing ones, as Serve itself would end its proxies before them."""
    from serve.app import DRAIN_SECONDS

    deadline = time.monotonic() + DRAIN_SECONDS
    with suppress(Exception):  # no replica that could answer: no request is ongoing
        while ingress and time.monotonic() < deadline and any(ingress.broadcast("close").results(timeout_s=5)):
            time.sleep(0.1)
        time.sleep(FLUSH_SECONDS)


def _delete_application() -> None:
    """Remove our application from a cluster that others use, and Serve only if they serve nothing there."""
    from ray import serve

    serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()


def _start(settings: Settings, host: str, port: int) -> Any:
    """Run the application. Returns the handle of its ingress, or raises the reason of a replica that cannot start."""
    from ray import serve

    from serve.app import bind

    timeout = settings.timeout_seconds + settings.limits.upload_seconds + PROXY_GRACE
    quiet: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}
    with Heartbeat("Ray Serve to start", every=ANNOUNCE_SECONDS) as waiting:
        with _one_line("Ray Serve did not start", _TOO_BUSY):
            serve.start(
                http_options={"host": host, "port": port, "request_timeout_s": timeout, "keep_alive_timeout_s": 90},
                logging_config=quiet,
            )
        waiting.beat("a replica to load the model")
        try:
            return serve.run(bind(settings), name=APPLICATION, route_prefix="/", logging_config=quiet)
        except RuntimeError as error:
            # Serve's message has the traceback of the replica, whose last line is the error itself.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise DepthrayError(f"the service did not start: {(lines or ['no reason given'])[-1]}") from None


_TOO_BUSY = "the machine may be too busy for Ray's time limits; start it again when there is less load"


@contextmanager
def _one_line(what: str, advice: str) -> Iterator[None]:
    """Whatever Ray raises as a ResourceError of one line: what failed, the first line of the reason, what to do."""
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, RuntimeError, OSError, ValueError) as error:  # OSError: connections, timeouts
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ResourceError(f"{what}: {reason.rstrip('.')}; {advice}") from None


def _print_addresses(host: str, port: int) -> None:
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    url = f"http://{shown}:{port}"
    print(f"page        {url}/")
    print(f"try         curl --data-binary @PHOTO.jpg {url}/v1/depth > depth.png")
    print(f"next        depthray serve promote RUN; API: {url}/docs; Ctrl-C ends", flush=True)


@contextmanager
def _cluster(address: str | None, settings: Settings) -> Iterator[bool]:
    """A connection to the cluster at an address, or a local one of ours (True) that lives as long as the context."""
    prepare_environment(process_environment.SERVICE, local=not address)
    import ray.serve  # with serve, so that its logger is configured by now and its level can be set

    if ray.is_initialized():  # by the calling program, which will also end it
        yield False
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    quiet |= shadowed_packages.ray_arguments()
    if address:
        advice = "is it the address of a running Ray cluster, as ray://HOST:10001 or HOST:6379?"
        with Heartbeat(f"the cluster at {address}", every=ANNOUNCE_SECONDS), _one_line(f"--address {address}", advice):
            ray.init(address=address, **quiet)
    else:
        replicas = (settings.model_replicas, settings.ingress_replicas)
        reserved = sum(each.max * each.cpus for each in replicas) + 1  # and one for Serve's controller and proxy
        # On a small machine replicas share cores: Ray must not wait for more of them than there will ever be.
        cpus = max(os.cpu_count() or 1, int(reserved + 0.999))
        with Heartbeat("Ray to start", every=ANNOUNCE_SECONDS):
            start_local(ray, num_cpus=cpus, include_dashboard=False, **quiet)
    try:
        yield not address
    finally:
        ray.shutdown()
