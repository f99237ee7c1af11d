"""Requests to the HTTP API over a fake backend, and what a refusal must look like."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from asgi import Reply, ask
from serve_backend import app, encoded, scene

PHOTO = encoded(scene())
API = app()


def post(
    body: bytes = PHOTO, kind: str | None = "image/png", *, path: str = "/v1/depth", to: Any = API, **more: Any
) -> Reply:
    headers = [("Content-Type", kind)] if kind is not None else []
    return ask(to, "POST", path, body=body, headers=[*headers, *more.pop("headers", [])], **more)


def depth(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body[:300]
    array: np.ndarray = np.load(io.BytesIO(reply.body))
    return array


def refused(reply: Reply, status: int, *words: str) -> dict[str, Any]:
    """See that a reply is a proper problem document of the status."""
    assert reply.status == status, reply.body[:300]
    assert reply.kind == "application/problem+json"
    tree: dict[str, Any] = reply.tree
    assert tree["status"] == status and tree["error"] == tree["detail"] and tree["title"]
    assert tree["instance"] == "urn:request:" + reply.headers["x-request-id"]
    for word in words:
        assert word in tree["detail"]
    for secret in ("Traceback", "/tmp", "/root", "/work", " 0x", ".py"):
        assert secret not in reply.body.decode()
    return tree
