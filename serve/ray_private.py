"""The only file of the service with private names of Ray, so that an upgrade of Ray is checked in one place.

Checked with Ray 2.60.0. `serve.monitoring` and the rest use public names alone.
"""

from __future__ import annotations

from typing import Any

from ray.serve.context import _get_global_client


def http_host() -> str | None:
    """The address that Serve's proxies listen at.

    `_get_global_client().http_config`: a replica must know whether others can reach it, whatever started Serve
    (`depthray serve`, `serve run`, `serve deploy`), and no public function returns the HTTP options of a running Serve.
    """
    client: Any = _get_global_client()
    host: str | None = client.http_config.host
    return host
