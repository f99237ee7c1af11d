"""Clients that retry quickly, and images and answers to test them with."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import httpx
import numpy as np

from depthray.client.client import DepthClient, RetryPolicy

QUICK = RetryPolicy(tries=4, first=0.01, longest=1.0)
RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)


def answering(answer: Callable[[httpx.Request], httpx.Response], *, retry: RetryPolicy = QUICK) -> DepthClient:
    return DepthClient("http://depth.test", retry=retry, transport=httpx.MockTransport(answer))


def png(rgb: np.ndarray = RGB) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()
