"""What Ray reads from the environment when it is imported; this module itself imports no Ray."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

# No usage statistics leave the machine, and albumentations does not ask the network for a newer version of itself.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}


def prepare_environment(settings: Mapping[str, str], *, local: bool) -> None:
    """Set what is not set yet, before Ray is imported. A `local` cluster answers this process tree alone."""
    for key, value in {**QUIET, **settings}.items():
        os.environ.setdefault(key, value)
    if local and "RAY_AUTH_MODE" not in os.environ:
        # Without a token in the environment Ray would write one to the home folder, where it outlives the cluster.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
