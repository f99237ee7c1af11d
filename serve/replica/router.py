"""From the ingress to the replicas: images are resized to the network's input here, and only that travels.

During a promotion a replica may hold another version than the store serves; it replies which, and the request is
prepared again for that one. A request of a replica that dies goes to another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from depthray.errors import DataError, DepthrayError
from depthray.imaging.camera import Camera
from depthray.network_inputs import prepare, restore
from serve.backend import BackendAnswer, Broken, ModelCard, NotReady, Overloaded, TimedOut, UnknownModel
from serve.registry.store import Pointer, Store
from serve.replica import limits_check
from serve.replica.replica import Reply
from serve.settings import Settings

ATTEMPTS = 4  # replicas asked before a version counts as not loaded anywhere
MAX_DEATHS = 3  # replicas that may die at a request before it is taken for the cause
PAUSE = 0.25  # seconds between attempts, as the store may have changed just now
PING_TIMEOUT = 2.0  # seconds a replica may take to answer `hello`


@dataclass(frozen=True)
class _ServedModel:
    """A model in the store when it was last read."""

    pointer: Pointer
    card: ModelCard


class Router:
    """The Backend of the API over the handle of the `Depth` deployment."""

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        self._handle, self._settings = handle, settings
        self._store = Store(settings.store)
        self._models: dict[str, _ServedModel] = {}
        self._refreshed = float("-inf")
        self._lock = asyncio.Lock()  # one request reads the store, the others wait for it

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
        """See `serve.backend.Backend.predict`."""
        started = time.monotonic()
        card = await self._card(model)
        is_pinned = "@" in model  # its client wants that version and no other
        for attempt in range(ATTEMPTS):
            # In a thread: other requests should not wait for the resizing of this one.
            sample = await asyncio.to_thread(partial(prepare, camera=camera), rgb, others, card.section)
            prepared = time.monotonic()
            reply = await self._send(card, sample, deadline)
            if reply.fault != "elsewhere":
                break
            if is_pinned or not reply.version:
                await asyncio.sleep(PAUSE * (attempt > 0))  # first try another replica at once
            else:
                # That version may have other inputs, and another size.
                card = await asyncio.to_thread(self._card_of, card.name, reply.version)
        if reply.fault:
            _raise_fault(reply, card)
        replied = time.monotonic()
        size = (rgb.shape[0], rgb.shape[1])

        def finish() -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
            maps = dict(reply.maps) if native else restore(reply.maps, size)
            return maps, limits_check.warnings(card, size, sample, reply.maps)

        maps, warnings = await asyncio.to_thread(finish)
        timings = {"resize": prepared - started, **reply.timings, "restore": time.monotonic() - replied}
        focal = limits_check.focal(card, size, sample)
        return BackendAnswer(maps, card.id, card.size, timings, warnings, focal)

    async def models(self) -> list[ModelCard]:
        """See `serve.backend.Backend.models`."""
        await self._refresh()
        return [served.card for served in self._models.values()]

    async def ready(self) -> bool:
        """Whether a replica answers. Where zero replicas are allowed: whether one would have a model to load."""
        if not await self.models():
            return False
        if not self._settings.model_replicas.min:
            return True
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                return bool(await self._handle.hello.remote())
        except BackPressureError:
            return True  # replicas that are busy are up
        except (TimeoutError, RayError, DeploymentUnavailableError):
            return False

    async def _send(self, card: ModelCard, sample: Any, deadline: float) -> Reply:
        """The reply of one replica, or of another if it dies meanwhile."""
        deaths = 0
        while (left := deadline - time.monotonic()) > 0:
            # Seconds, not a time of day: the clock of the replica's host may be another.
            response = self._handle.predict.remote(card.name, card.version, sample, left)
            try:
                async with asyncio.timeout(left):
                    reply: Reply = await response
                    return reply
            except RayActorError:
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise Broken(f"{deaths} replicas died while they computed this request") from None
                await asyncio.sleep(PAUSE)
            except BackPressureError as error:
                raise Overloaded(retry_after=getattr(error, "retry_after_s", None) or 1.0) from None
            except DeploymentUnavailableError:
                raise NotReady("the model is not being served now") from None
            except (TimeoutError, RequestCancelledError):
                _cancel(response)
                break
            except asyncio.CancelledError:  # the client has disconnected
                _cancel(response)
                raise
        return Reply(card.version, fault="late")

    async def _card(self, model: str) -> ModelCard:
        """The card of "", name or name@version."""
        await self._refresh()
        name, at, version = model.partition("@")
        if not self._models:
            raise NotReady("no model is being served yet")
        served = self._models.get(name or self._settings.default or next(iter(self._models)))
        if served is None or (at and version not in served.pointer.versions):
            raise UnknownModel(f"no model '{model[:80]}'; available are {', '.join(self._models)}")
        if not at or version == served.card.version:
            return served.card
        return await asyncio.to_thread(self._store.card, name, version)

    async def _refresh(self) -> None:
        """Read the store, but not more often than the settings say."""
        if time.monotonic() - self._refreshed < self._settings.model.poll_seconds:
            return
        async with self._lock:
            if time.monotonic() - self._refreshed >= self._settings.model.poll_seconds:  # not by another meanwhile
                self._models = await asyncio.to_thread(self._read_store)
                self._refreshed = time.monotonic()

    def _card_of(self, name: str, version: str = "") -> ModelCard:
        """The card of a version as replicas serve it, with the confidence that they add."""
        card = self._store.card(name, version)
        adds = bool(self._settings.model.confidence) and "depth" in card.targets
        return replace(card, confidence=card.confidence or adds)

    def _read_store(self) -> dict[str, _ServedModel]:
        """The models in the store; one that cannot be read stays as it was."""
        models: dict[str, _ServedModel] = {}
        for name in self._store.names():
            try:
                pointer = self._store.pointer(name)
                served = self._models.get(name)
                if served is None or served.pointer != pointer:
                    served = _ServedModel(pointer, self._card_of(name))
                models[name] = served
            except DepthrayError:
                # The replicas that have loaded it still answer.
                if name in self._models:
                    models[name] = self._models[name]
        default = self._settings.default or next(iter(models), "")
        marked = {name: _mark_default(served, default=name == default) for name, served in models.items()}
        return dict(sorted(marked.items(), key=lambda item: not item[1].card.default))


def _cancel(response: Any) -> None:
    """Have the replica drop the request from its queue, as nobody waits for the reply."""
    response.cancel()


def _mark_default(served: _ServedModel, *, default: bool) -> _ServedModel:
    if served.card.default == default:
        return served
    return _ServedModel(served.pointer, replace(served.card, default=default))


def _raise_fault(reply: Reply, card: ModelCard) -> Never:
    """The exception that a fault means for the client."""
    if reply.fault == "late":
        raise TimedOut("the answer took too long")
    if reply.fault == "input":
        raise DataError(reply.detail)
    if reply.fault == "memory":
        raise NotReady("too little memory for this request now")
    if reply.fault == "elsewhere":
        raise NotReady(f"{card.id} is not loaded yet")
    raise Broken(f"{card.id} failed on this input")
