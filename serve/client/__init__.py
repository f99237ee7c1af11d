"""Clients of the HTTP endpoint: `from serve.client import DepthClient`."""

from serve.client.client import AsyncDepthClient, DepthClient, RetryPolicy

__all__ = ["AsyncDepthClient", "DepthClient", "RetryPolicy"]
