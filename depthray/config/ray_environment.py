"""What Ray reads from the environment when it is imported, and its start for a process alone; imports no Ray itself."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from depthray.errors import ResourceError

# No usage statistics leave the machine, and albumentations does not ask the network for a newer version of itself.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}
TRIES = 3  # of a local Ray to start: it gives its own processes 30 s, which a busy machine may exceed
# Of processes that reserve no GPU: Ray leaves the variable as it is, and they would see all GPUs of their node.
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def prepare_environment(settings: Mapping[str, str], *, local: bool) -> None:
    """Set what is not set yet, before Ray is imported. A `local` cluster answers this process tree alone."""
    for key, value in {**QUIET, **settings}.items():
        os.environ.setdefault(key, value)
    if local and "RAY_AUTH_MODE" not in os.environ:
        # Without a token in the environment Ray would write one to the home folder, where it outlives the cluster.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def start_local(ray: Any, **settings: Any) -> None:
    """Start Ray on this machine for this process alone.

    `ray` is the module, which the library itself does not import, and the settings those of its `init`.
    Raises ResourceError where it does not start, after TRIES of them.
    """
    import tenacity

    # Ray raises no class of its own here. What it has started of a node it ends when it is shut down.
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES), before_sleep=lambda _: ray.shutdown(), reraise=True
    )
    try:
        # "local": without it Ray would join a cluster that runs on this machine already.
        retrying(ray.init, "local", **settings)
    except Exception as error:
        ray.shutdown()
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ResourceError(
            f"Ray did not start on this machine: {reason.rstrip('.')}; the machine may be too busy for Ray's time "
            "limits; start it again when there is less load"
        ) from None


def gpu_slots(gpus: float, each: float) -> int:
    """How many processes of `each` GPUs fit on so many GPUs. Ray places a fraction on one GPU, never across two."""
    if each < 1:
        return int(gpus) * int(1 / each + 1e-9)  # 3 of 0.3 on each GPU, and 2 of 0.4
    return int(gpus // each)
