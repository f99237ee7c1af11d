"""A server in place of a checkpoint: the interface of `depthray.predict.load`, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.client.client import DepthClient
from depthray.client.requests import Image
from depthray.errors import UsageError, did_you_mean
from depthray.imaging.camera import Camera


class RemotePredictor:
    """A model of a server. `inputs` and `maps` are as a Predictor has them."""

    def __init__(self, client: DepthClient, card: dict[str, Any], *, name: str) -> None:
        self._client = client
        self.name = name
        self.inputs = tuple(map(str, card.get("inputs", ("image",))))
        self.needs_camera = bool(card.get("canonical_focal"))
        self.warnings: tuple[str, ...] = ()  # of the last image: what of it is not as in training

    def maps(
        self, image: Image, *, camera: Camera | None = None, **others: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """An image and inputs of its size -> (H,W) float32 `depth` in metres, `mask` in [0,1].

        `camera` is in pixels of the upright image.
        A file is sent as it is, and the server rotates it by its EXIF orientation; (H,W,3) uint8 RGB is upright.
        """
        further: dict[str, Any] = others
        estimate = self._client.maps(image, model=self.name, camera=camera, **further)
        self.warnings = estimate.warnings
        return estimate.maps


@contextmanager
def connect(url: str, *, model: str = "", key: str = "") -> Iterator[RemotePredictor]:
    """The default model of a server, or name[@version]. The first request is made here, to report a wrong address."""
    with DepthClient(url, key=key) as client:
        names = {str(card["name"]): card for card in client.models()}
        name, at, version = model.partition("@")
        if not names or (model and name not in names):
            raise UsageError(f"{url}: no model '{name}' there{did_you_mean(name, names)}")
        name = name or next((each for each, card in names.items() if card.get("default")), next(iter(names)))
        yield RemotePredictor(client, names[name], name=f"{name}{at}{version}")
