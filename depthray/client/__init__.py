"""Clients of a depth server, over HTTP: `from depthray.client import DepthClient`. They need no Ray."""

from depthray.client.client import AsyncDepthClient, DepthClient, RetryPolicy
from depthray.client.responses import Estimate, RefusedError, ServerError, UnavailableError

__all__ = [
    "AsyncDepthClient",
    "DepthClient",
    "Estimate",
    "RefusedError",
    "RetryPolicy",
    "ServerError",
    "UnavailableError",
]
