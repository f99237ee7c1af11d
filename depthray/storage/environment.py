"""Settings of storage in the environment: how long failures are retried, where files are cached and how many."""

from __future__ import annotations

import math
import os
from hashlib import sha256
from pathlib import Path

from depthray.errors import UsageError
from depthray.storage.remote import normalize_address

# The first keeps the name that scripts know.
RETRY_SECONDS, CACHE, CACHE_GB = "DEPTHRAY_STORAGE_PATIENCE", "DEPTHRAY_CACHE", "DEPTHRAY_CACHE_GB"
OFFLINE = "DEPTHRAY_OFFLINE"
NO = ("", "0", "false", "no", "off")
GB = 1e9


def retry_seconds() -> float:
    """Seconds for which a run waits for storage that fails before it ends: DEPTHRAY_STORAGE_PATIENCE, else 600."""
    given = os.environ.get(RETRY_SECONDS, "600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{RETRY_SECONDS}={given}: give a number of seconds, such as 600")
    return seconds


def cache_folder() -> Path:
    """The folder of this machine for copies of remote files: DEPTHRAY_CACHE, else ~/.cache/depthray."""
    return Path(os.path.abspath(os.environ.get(CACHE) or Path.home() / ".cache" / "depthray"))


def cache_bytes() -> int | None:
    """How many bytes of shards are cached at most: DEPTHRAY_CACHE_GB; None, without it, leaves that to the disk."""
    given = os.environ.get(CACHE_GB, "")
    if not given:
        return None
    try:
        limit = int(float(given) * GB)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UsageError(f"{CACHE_GB}={given}: give the size of the cache in GB, e.g. 200")
    return limit


def is_offline() -> bool:
    """Whether nothing may be downloaded: DEPTHRAY_OFFLINE=1. Stores on which data and runs are do not count."""
    return os.environ.get(OFFLINE, "").lower() not in NO


def cached_copy(kind: str, url: str) -> Path:
    """The folder of the cache for a remote folder, of its name and a digest of its address."""
    # Runs may have equal names under different addresses, hence the digest; the name is for people who look there.
    url = normalize_address(url)
    return cache_folder() / kind / f"{url.rsplit('/', 1)[-1]}-{sha256(url.encode()).hexdigest()[:12]}"
