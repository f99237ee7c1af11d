"""From the ingress to the replicas: pictures are brought to the network's size here, and only that travels.

A replica may hold another version than the store says, for the moment of a promotion; it then says which, and the
request is prepared again for that one. A replica that dies is no reason to fail: the request goes to another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from depthray.config.sections import Data
from depthray.errors import DataError, DepthrayError
from depthray.predict import prepare, restore
from serve.backend import Answer, Broken, Busy, ModelCard, NotReady, TimedOut, UnknownModel
from serve.registry.store import Pointer, Store
from serve.replica.replica import Reply
from serve.settings import Settings

TRIES = 4  # replicas asked before a version counts as not there
DEATHS = 3  # replicas that may die at a request until it is held to be the cause
PAUSE = 0.25  # seconds between them, as the store may have changed just now
HELLO = 2.0  # seconds a replica may take to say that it is there


@dataclass(frozen=True)
class _Known:
    """What the store said of a model when last looked at."""

    pointer: Pointer
    card: ModelCard


class Relay:
    """The Backend of the API over the handle of the `Depth` deployment."""

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        self._handle, self._settings = handle, settings
        self._store = Store(settings.store)
        self._known: dict[str, _Known] = {}
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    async def predict(
        self,
        model: str,
        rgb: NDArray[np.uint8],
        others: Mapping[str, NDArray[Any]],
        deadline: float,
        *,
        native: bool = False,
    ) -> Answer:
        """See `serve.backend.Backend.predict`."""
        started = time.monotonic()
        card = await self._card(model)
        pinned = "@" in model
        for again in range(TRIES):
            section = Data(inputs=card.inputs, size=card.size, fit=card.fit)
            sample = await asyncio.to_thread(prepare, rgb, others, section)
            prepared = time.monotonic()
            reply = await self._ask(card, sample, deadline)
            if reply.fault != "elsewhere":
                break
            if pinned or not reply.version:
                await asyncio.sleep(PAUSE * (again > 0))
            else:
                card = await asyncio.to_thread(self._store.card, card.name, reply.version)
        if reply.fault:
            _raise(reply, card)
        size = None if native else (rgb.shape[0], rgb.shape[1])
        maps = await asyncio.to_thread(restore, reply.maps, size) if size else dict(reply.maps)
        timings = {"resize": prepared - started, **reply.timings}
        return Answer(maps, card.id, card.size, timings)

    async def models(self) -> list[ModelCard]:
        """See `serve.backend.Backend.models`."""
        await self._look()
        return [known.card for known in self._known.values()]

    async def ready(self) -> bool:
        """Whether a replica answers; without any at all, which may be so by wish, whether one would have a model."""
        if not await self.models():
            return False
        if not self._settings.model_replicas.min:
            return True
        try:
            async with asyncio.timeout(HELLO):
                return bool(await self._handle.hello.remote())
        except BackPressureError:
            return True  # those that are busy are there
        except (TimeoutError, RayError, DeploymentUnavailableError):
            return False

    async def _ask(self, card: ModelCard, sample: Any, deadline: float) -> Reply:
        """One replica's reply, of another one if it dies meanwhile."""
        deaths = 0
        while (left := deadline - time.monotonic()) > 0:
            response = self._handle.predict.remote(card.name, card.version, sample, left)
            try:
                async with asyncio.timeout(left):
                    reply: Reply = await response
                    return reply
            except RayActorError:
                deaths += 1
                if deaths == DEATHS:
                    raise Broken(f"{deaths} replicas died while they computed this request") from None
                await asyncio.sleep(PAUSE)
            except BackPressureError as error:
                raise Busy(retry_after=getattr(error, "retry_after_s", None) or 1.0) from None
            except DeploymentUnavailableError:
                raise NotReady("the model is not being served now") from None
            except (TimeoutError, RequestCancelledError):
                _give_up(response)
                break
            except asyncio.CancelledError:  # the client has gone
                _give_up(response)
                raise
        return Reply(card.version, fault="late")

    async def _card(self, model: str) -> ModelCard:
        """The card of "", name or name@version."""
        await self._look()
        name, at, version = model.partition("@")
        if not self._known:
            raise NotReady("no model is being served yet")
        known = self._known.get(name or self._settings.default or next(iter(self._known)))
        if known is None or (at and version not in known.pointer.versions):
            raise UnknownModel(f"no model '{model[:80]}'; those that answer are {', '.join(self._known)}")
        if not at or version == known.card.version:
            return known.card
        return await asyncio.to_thread(self._store.card, name, version)

    async def _look(self) -> None:
        """Learn of new versions; not more often than the settings say."""
        if time.monotonic() - self._looked < self._settings.model.poll_seconds:
            return
        async with self._looking:
            if time.monotonic() - self._looked >= self._settings.model.poll_seconds:
                self._known = await asyncio.to_thread(self._read)
                self._looked = time.monotonic()

    def _read(self) -> dict[str, _Known]:
        """The store as it is now; a model that cannot be read stays as it was."""
        found: dict[str, _Known] = {}
        for name in self._store.names():
            try:
                pointer = self._store.pointer(name)
                known = self._known.get(name)
                if known is None or known.pointer != pointer:
                    known = _Known(pointer, self._store.card(name))
                found[name] = known
            except DepthrayError:
                if name in self._known:
                    found[name] = self._known[name]
        default = self._settings.default or next(iter(found), "")
        marked = {name: _marked(known, default=name == default) for name, known in found.items()}
        return dict(sorted(marked.items(), key=lambda item: not item[1].card.default))


def _give_up(response: Any) -> None:
    """Tell the replica that nobody waits for its reply."""
    response.cancel()


def _marked(known: _Known, *, default: bool) -> _Known:
    return known if known.card.default == default else _Known(known.pointer, replace(known.card, default=default))


def _raise(reply: Reply, card: ModelCard) -> Never:
    """The exception that a faulty reply means for the client."""
    if reply.fault == "late":
        raise TimedOut("the answer took too long")
    if reply.fault == "input":
        raise DataError(reply.detail)
    if reply.fault == "memory":
        raise NotReady("too little memory for this request now")
    if reply.fault == "elsewhere":
        raise NotReady(f"{card.id} is not loaded yet")
    raise Broken(f"{card.id} failed on this input")
