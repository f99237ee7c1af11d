"""A server in the place of a checkpoint: what `depthray.predict.load` gives, asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError, did_you_mean
from serve.client import DepthClient


class Remote:
    """A model of a server. `inputs` and `maps` are as a Predictor has them."""

    def __init__(self, client: DepthClient, card: dict[str, Any]) -> None:
        self._client = client
        self.name = str(card["name"])
        self.inputs = tuple(map(str, card.get("inputs", ("image",))))

    def maps(self, rgb: NDArray[np.uint8], **others: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """(H,W,3) uint8 RGB, upright, and inputs of its size -> (H,W) float32 `depth` in metres, `mask` in [0,1]"""
        further: dict[str, Any] = others
        return self._client.maps(rgb, model=self.name, **further).maps


@contextmanager
def connected(url: str, *, model: str = "", key: str = "") -> Iterator[Remote]:
    """The default model of a server, or the one of a name; it is asked at once, so that a wrong address shows early."""
    with DepthClient(url, key=key) as client:
        names = {str(card["name"]): card for card in client.models()}
        if not names or (model and model not in names):
            raise UsageError(f"{url}: no model '{model}' there{did_you_mean(model, names)}")
        default = next((name for name, card in names.items() if card.get("default")), next(iter(names)))
        yield Remote(client, names[model or default])
