"""What makes depth of an image for the node: a checkpoint or an export in this process, or a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from depthray.cli.predicting.predict_flags import KEY
from depthray.client import DepthClient, RetryPolicy
from depthray.client.remote_predictor import connect
from depthray.errors import UsageError
from depthray.network_inputs import prepare
from depthray.predict import Predictor, load
from serve.ros.node_settings import NodeSettings, OutputSize

Estimator = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (H,W,3) RGB -> (h,w) metres, not positive = none

TIMEOUT = 10.0  # seconds until a server's answer is given up
ONCE = RetryPolicy(tries=1)  # the next image is worth more than another try of this one


@contextmanager
def open_estimator(settings: NodeSettings) -> Iterator[Estimator]:
    """The network or server of the settings; a UsageError where its depth is not of an image alone, in metres."""
    if not settings.server:
        yield _of_predictor(load(settings.model, device=settings.device or None, trust=settings.trust), settings.size)
        return
    key = os.environ.get(KEY, "")
    with connect(settings.server, model=settings.model, key=key) as remote:
        name = remote.name
        _check_inputs(remote.inputs)
    with DepthClient(settings.server, key=key, timeout=TIMEOUT, retry=ONCE) as client:
        size = "model" if settings.size == "model" else ""
        yield lambda rgb: client.predict(rgb, model=name, size=size).metres


def _of_predictor(predictor: Predictor, size: OutputSize) -> Estimator:
    data = predictor.recipe.data
    if "depth" not in data.targets:
        raise UsageError(f"the node publishes depth, and this network predicts {', '.join(data.targets)}")
    predictor.check_metres("the node")
    _check_inputs(name for name in data.inputs if name not in predictor.optional_inputs)

    def at_own_size(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        none = {name: np.zeros(rgb.shape[:2], np.float32) for name in predictor.optional_inputs}
        (maps,) = predictor.run([prepare(rgb, none, data)], passes=predictor.passes)
        return maps["depth"]

    return at_own_size if size == "model" else lambda rgb: predictor.predict(rgb).metres


def _check_inputs(inputs: Iterable[str]) -> None:
    others = [name for name in inputs if name != "image"]
    if others:
        raise UsageError(f"the node has images alone, and this network needs {', '.join(others)} too")
