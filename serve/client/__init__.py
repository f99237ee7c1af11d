"""Clients of the HTTP endpoint: `from serve.client import DepthClient`."""

from serve.client.client import AsyncDepthClient, DepthClient

__all__ = ["AsyncDepthClient", "DepthClient"]
