"""The protocol between the HTTP API (serve/http) and the networks (serve/replica).

The API depends on this alone, so that it is tested without Ray, and the networks without HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from depthray.checkpoints.model_facts import ModelFacts
from depthray.config.sections import Data
from depthray.imaging.camera import Camera


class BackendError(Exception):
    """A request that cannot be answered. The text is for the client: it names no file and no address."""


class UnknownModel(BackendError):
    """No model of that name, or not in that version (404)."""


class Overloaded(BackendError):
    """The queue is full (429)."""

    def __init__(self, text: str = "too many requests are waiting", *, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class NotReady(Overloaded):
    """No replica has loaded the model yet (503)."""


class TimedOut(BackendError):
    """The deadline passed before the answer (504; 408 is Serve's own)."""


class Broken(BackendError):
    """The network failed on this input or predicted no valid depth (500); the log has the details."""


@dataclass(frozen=True)
class ModelCard:
    """The properties of a model that its clients need."""

    name: str  # as in URLs: [a-z0-9][a-z0-9._-]{0,63}
    version: str  # the first 12 hex digits of its manifest's SHA-256
    architecture: str
    inputs: tuple[str, ...]  # "image" and the other inputs that each request must contain
    targets: tuple[str, ...]  # "depth", "mask" or both: the maps of an answer
    confidence: bool = field(default=False, kw_only=True)  # whether an answer has `sigma` and `confidence` besides
    size: tuple[int, int]  # (H,W) pixels of the network's input
    min_depth: float  # metres
    max_depth: float  # metres
    fit: Literal["exact", "aspect", "native"] = "exact"  # images are resized to that size, one of their aspect, or not
    # Of the canonical camera in pixels, above 0 each request needs a camera; and how frames become those of that.
    canonical_focal: float = field(default=0.0, kw_only=True)
    canonical: Literal["label", "image", "none"] = field(default="label", kw_only=True)
    default: bool = False  # whether it answers requests that name no model
    versions: tuple[str, ...] = ()  # available as name@version, newest first
    metrics: Mapping[str, float] = field(default_factory=dict)  # validation scores
    about: str = ""
    runtime: str = "eager"  # that the service prefers: an export's target, or eager for PyTorch
    # Of the weights that its training started from: family, licence, commercial, trained_on ...; {} for random ones.
    origin: Mapping[str, Any] = field(default_factory=dict)
    facts: ModelFacts | None = None  # of its model card: data, scores with intervals, robustness; None: not recorded
    limits: tuple[str, ...] = ()  # of what it was trained for, in words

    @property
    def section(self) -> Data:
        """The section of a recipe by which images are prepared for it."""
        return Data(
            inputs=self.inputs,
            size=self.size,
            fit=self.fit,
            canonical_focal=self.canonical_focal,
            canonical=self.canonical,
        )

    @property
    def id(self) -> str:
        """name@version, as in the header X-Model."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class BackendAnswer:
    """The prediction for one image."""

    maps: dict[str, NDArray[np.float32]]  # (H,W) by target: `depth` metres, `mask` probability
    model_id: str  # name@version that computed it
    input_size: tuple[int, int]  # (H,W) pixels of the network's input
    timings: dict[str, float] = field(default_factory=dict)  # seconds by stage: resize, queue, model, restore
    warnings: tuple[str, ...] = ()  # what of the image and its depth is not as in training
    focal: tuple[float, float] | None = None  # fx as in training, in pixels of this image; None: not known


class Backend(Protocol):
    """The models behind the API."""

    async def predict(
        self,
        model: str,
        rgb: NDArray[np.uint8],
        others: Mapping[str, NDArray[Any]],
        deadline: float,
        *,
        native: bool = False,
        camera: Camera | None = None,
    ) -> BackendAnswer:
        """(H,W,3) uint8 RGB, upright, and further inputs of its size -> maps (H,W), or the network's (h,w) if `native`.

        `model` is "" for the default, a name, or name@version. `deadline` is a `time.monotonic()`.
        `camera` is that of the image, in its pixels, where the client gave one: some models need it.
        `others` are as for `depthray.predict.Predictor.maps`. Raises a BackendError, or UsageError and DataError of
        depthray.errors for a missing, unknown or misfit input (these texts are for the client too).
        """
        ...

    async def models(self) -> list[ModelCard]:
        """The models that answer, the default first."""
        ...

    async def ready(self) -> bool:
        """Whether a request sent now would be answered."""
        ...
