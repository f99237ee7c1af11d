"""The names of `depthray.client`, as they were imported before the client moved there."""

from depthray.client import (
    AsyncDepthClient,
    DepthClient,
    Estimate,
    RefusedError,
    RetryPolicy,
    ServerError,
    UnavailableError,
)

__all__ = [
    "AsyncDepthClient",
    "DepthClient",
    "Estimate",
    "RefusedError",
    "RetryPolicy",
    "ServerError",
    "UnavailableError",
]
