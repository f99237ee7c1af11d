"""From the start of Ray Serve to its last answer: a cluster, the application on it, an end that breaks nothing off."""

from __future__ import annotations

import gc
import io
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

from depthray.errors import DepthrayError, ResourceError, UsageError
from serve.proxy import admission
from serve.settings import Settings

APPLICATION = "depth"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Read when Ray is imported; a line for each request costs more than answering it.
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a proxy that died is missed after 3 of these, not after 30 s
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",  # else replicas follow a load 10 s late
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.proxy.uvicorn:bounded",
}
GRACE = 15.0  # seconds beyond the longest request until Serve's own 408
LOOK, MISSES = 2.0, 3  # seconds between looks at whether Ray is there, and how often it may be missed
FLUSH = 0.3  # seconds for the last answers on their way through Serve's proxy


def run(settings: Settings, host: str, port: int, *, address: str | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer what was asked before and go."""
    os.environ[admission.VARIABLE] = admission.told(settings)
    with _signals_given_back(), _cluster(address, settings) as ours:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # once Ray is up, as it takes SIGTERM for itself
        ingress = None
        try:
            if ours:
                _refuse_lack(settings)
            else:
                _refuse_another()
            ingress = _start(settings, host, port)
            _tell(host, port)
            _watch()
        finally:
            with suppress(KeyboardInterrupt), redirect_stderr(io.StringIO()):  # Ray warns that what we end has ended
                _drain(ingress)
                if not ours:
                    _withdraw()
            for number in SIGNALS:  # what is left takes a second, and leaves nothing behind
                signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # else the interpreter looks at all of torch and Ray once more before it ends, for seconds
    return 0


@contextmanager
def _signals_given_back() -> Iterator[None]:
    """What the signals did before, they do again afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _refuse_lack(settings: Settings) -> None:
    """Serve would wait for a GPU that never comes."""
    import ray

    wanted, there = settings.model.gpus or 0.0, ray.cluster_resources().get("GPU", 0.0)
    if wanted * max(1, settings.model_replicas.min) > there:
        raise ResourceError(
            f"--gpu, model.gpus={wanted:g}: too few GPUs, Ray sees {there:g} here; depthray doctor tells why"
        )


def _refuse_another() -> None:
    """Another service of the name would be replaced, and ended with this one."""
    from ray import serve

    if APPLICATION in serve.status().applications:
        raise UsageError(
            f"this cluster serves '{APPLICATION}' already; change it with depthray serve promote or serve deploy, "
            "or end it first"
        )


def _watch() -> None:
    """Until a signal comes; another one while requests are answered ends at once. ResourceError if Ray is lost."""
    missed = 0
    try:
        while missed < MISSES:
            time.sleep(LOOK)
            missed = 0 if _alive() else missed + 1
    except KeyboardInterrupt:
        print("stopping    answering what is under way; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        return
    raise ResourceError("Ray is gone from under the service (a process of its head has died); start it again")


def _alive() -> bool:
    """Whether the cluster answers and has a node left."""
    import ray

    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception:  # whatever a client says whose server has died
        return False


def _drain(ingress: Any) -> None:
    """Nothing new is taken and what is under way answered, as Serve itself ends its proxies before their requests."""
    from serve.app import DRAIN

    deadline = time.monotonic() + DRAIN
    with suppress(Exception):  # no replica that could answer: nothing is under way
        while ingress and time.monotonic() < deadline and any(ingress.broadcast("close").results(timeout_s=5)):
            time.sleep(0.1)
        time.sleep(FLUSH)


def _withdraw() -> None:
    """Leave a cluster that others use as it was; what they serve there goes on."""
    from ray import serve

    serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()


def _start(settings: Settings, host: str, port: int) -> Any:
    """Run the application and return the handle of its ingress; a replica that cannot start is said in one line."""
    from ray import serve

    from serve.app import bind

    patience = settings.timeout_seconds + settings.limits.upload_seconds + GRACE
    quiet: dict[str, Any] = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(
        http_options={"host": host, "port": port, "request_timeout_s": patience, "keep_alive_timeout_s": 90},
        logging_config=quiet,
    )
    try:
        return serve.run(bind(settings), name=APPLICATION, route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        reason = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "no reason given")
        raise DepthrayError(f"the service did not start: {reason.strip()}") from None


def _tell(host: str, port: int) -> None:
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    url = f"http://{shown}:{port}"
    print(f"page        {url}/")
    print(f"try         curl --data-binary @PHOTO.jpg {url}/v1/depth > depth.png")
    print(f"next        depthray serve promote RUN; {url}/docs tells the rest; Ctrl-C ends", flush=True)


def _set_environment(address: str | None) -> None:
    """What Ray reads when it is imported."""
    for key, value in RAY_SETTINGS.items():
        os.environ.setdefault(key, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # Only this process tree may talk to the local cluster; Ray would leave a token in the home folder.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _cluster(address: str | None, settings: Settings) -> Iterator[bool]:
    """A connection to the cluster at an address, or a local one of ours (True) that lives as long as the context."""
    _set_environment(address)
    import ray.serve  # so that its logger is set up by now, and can be quieted

    if ray.is_initialized():  # by the program that calls us, which will also end it
        yield False
        return
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        replicas = (settings.model_replicas, settings.ingress_replicas)
        wanted = sum(each.max * each.cpus for each in replicas) + 1
        cpus = max(os.cpu_count() or 1, int(wanted + 0.999))
        ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield not address
    finally:
        ray.shutdown()
