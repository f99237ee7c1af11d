"""The networks of one replica: the versions the store says are served, and requests to them in batches.

`Depth` is what Ray Serve multiplies (app.py); nothing here knows Ray, so that all of it runs in a test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from depthray.errors import CheckpointError, DataError, DepthrayError
from serve.registry import golden
from serve.registry.store import Pointer, Store
from serve.replica.batching import Batches, Late, OutOfMemory
from serve.replica.network import Network
from serve.settings import Model, Replicas, Settings

if TYPE_CHECKING:
    from depthray.batch import Sample

log = logging.getLogger("ray.serve")
Fault = Literal["", "elsewhere", "late", "memory", "broken", "nan", "input"]
STUCK = 120.0  # seconds of one forward pass after which the replica is given up
AGAIN = 60.0  # seconds until a version that could not be loaded is tried again
# Threads of one pass wait for each other at every layer, and whoever takes a core from one of them stops all; two
# passes side by side, each on half of the threads, do not.
PASSES = 2
FRESH = 10.0  # seconds for which a good answer proves the network's health


@dataclass(frozen=True)
class Reply:
    """What a replica says to one request; a fault is a value, since exceptions change on their way through Ray."""

    version: str
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (h,w) as the network gives them
    timings: Mapping[str, float] = field(default_factory=dict)
    fault: Fault = ""
    detail: str = ""  # of "input": what is wrong with it, for the client


class Withdrawn(DepthrayError):
    """A version was let go of while a request for it waited."""


class Depth:
    """The models of the store: each in the version served and the one before, followed while they change."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import torch

        self._settings = Settings.model_validate(settings)
        model = self._settings.model
        self._threads = 0 if _on_gpu(model) else model.threads or _share(self._settings.model_replicas)
        if self._threads:
            torch.set_num_threads(self._threads)
        self._store = Store(self._settings.store)
        self._networks: dict[tuple[str, str], Network] = {}
        self._pointers: dict[str, Pointer] = {}
        self._refused: dict[tuple[str, str], float] = {}
        self._proven = 0.0
        self._ill = ""  # why nothing sensible can be expected from here any more
        self._examination: asyncio.Task[None] | None = None
        self._batches: Batches[Sample, golden.Maps] = Batches(
            self._run,
            most=model.max_batch,
            passes=PASSES if self._threads > 1 and not model.compile else 1,
            linger=model.linger_ms / 1000,
            memory=(torch.OutOfMemoryError,),
        )
        self._load_all()
        _follow(self, self._settings.model.poll_seconds)

    async def predict(self, name: str, version: str, sample: Sample, seconds: float) -> Reply:
        """A prepared sample for name@version -> the network's maps, if this replica holds it and in so many seconds."""
        if (name, version) not in self._networks:
            return self._elsewhere(name)
        kind = (name, version, tuple((key, np.asarray(value).shape) for key, value in sorted(sample.items())))
        try:
            timed = await self._batches(kind, sample, deadline=time.monotonic() + seconds)
        except Late:
            return Reply(version, fault="late")
        except Withdrawn:
            return self._elsewhere(name)
        except DataError as error:  # what only the network can tell, such as class ids it does not know
            return Reply(version, fault="input", detail=str(error))
        except OutOfMemory:
            log.error("%s@%s: too little memory for one picture", name, version)
            return await self._failed(version, "memory")
        except Exception:
            log.exception("%s@%s failed on a picture", name, version)
            return await self._failed(version, "broken")
        if not all(np.isfinite(values).all() for values in timed.result.values()):
            log.error("%s@%s: its answer is not a number everywhere", name, version)
            return await self._failed(version, "nan")
        self._proven = time.monotonic()
        return Reply(version, timed.result, {"queue": timed.queue, "model": timed.model})

    async def hello(self) -> bool:
        """Answers, which is all that is asked."""
        return True

    async def check_health(self) -> None:
        """Raises if a forward pass hangs or the networks no longer give depth; Ray then replaces the replica."""
        if self._ill:
            raise RuntimeError(self._ill)
        since = self._batches.busy_since
        if since is not None:
            if time.monotonic() - since > STUCK:
                raise RuntimeError("a forward pass hangs")
            return
        if time.monotonic() - self._proven > FRESH:
            await self._batches.aside(self._probe)

    def give_up(self) -> None:
        """Called once nothing sensible can be expected from this process any more."""

    def _elsewhere(self, name: str) -> Reply:
        held = self._pointers.get(name)
        return Reply(held.current if held else "", fault="elsewhere")

    async def _failed(self, version: str, fault: Fault) -> Reply:
        """The reply to a picture that failed, when it is known whether the picture or the replica is to blame."""
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(self._examine())
        await asyncio.shield(self._examination)
        return Reply(version, fault=fault)

    async def _examine(self) -> None:
        """Ask the networks about a golden image; if that fails too, no other picture will fare better here."""
        try:
            await self._batches.aside(self._probe)
        except Exception as error:
            self._ill = str(error) or type(error).__name__
            log.critical("this replica gives up: %s", self._ill)
            self.give_up()

    def __del__(self) -> None:
        if hasattr(self, "_batches"):
            self._batches.close()

    def _run(self, kind: tuple[str, str, Any], samples: Sequence[Sample]) -> list[golden.Maps]:
        network = self._networks.get(kind[:2])
        if network is None:
            raise Withdrawn
        if self._batches.passes > 1:
            import torch

            torch.set_num_threads(self._threads if self._batches.alone else self._threads // PASSES)  # of this one
        return network.run(samples)

    def _probe(self) -> None:
        for network in list(self._networks.values()):
            network.probe()
        self._proven = time.monotonic()

    def look(self) -> None:
        """Take up what the store says now."""
        try:
            self._load_all()
        except Exception:  # whatever the store looks like, what is loaded goes on answering
            log.exception("the store cannot be followed")

    def _load_all(self) -> None:
        """Hold what the store says; a version that cannot be loaded leaves the one before in its place."""
        for name in self._store.names():
            try:
                pointer = self._store.pointer(name)
                if pointer != self._pointers.get(name):
                    self._take(name, pointer)
            except DepthrayError as error:
                log.error("%s: %s", name, error)
        if not self._networks:
            raise CheckpointError(f"{self._store.root}: no model that can be served; promote one")

    def _take(self, name: str, pointer: Pointer) -> None:
        """Load what is new of a pointer, then swap, then let go of what is no longer in it."""
        loaded = [version for version in pointer.versions if self._ensure(name, version)]
        if pointer.current not in loaded:
            if name in self._pointers or not loaded:
                return
            pointer = Pointer(loaded[0])
        self._pointers[name] = pointer
        keep = {(name, version) for version in pointer.versions}
        self._networks = {key: one for key, one in self._networks.items() if key[0] != name or key in keep}

    def _ensure(self, name: str, version: str) -> bool:
        """Whether a version is loaded, after trying to; one found bad is tried again only after a while."""
        key = (name, version)
        if key in self._networks or time.monotonic() < self._refused.get(key, 0):
            return key in self._networks
        try:
            network = self._load(name, version)
        except Exception as error:
            self._refused[key] = time.monotonic() + AGAIN
            log.error("%s@%s cannot be served: %s", name, version, error)
            return False
        self._networks = {**self._networks, key: network}
        log.info("%s@%s is loaded and warm", name, version)
        return True

    def _load(self, name: str, version: str) -> Network:
        from depthray.predict import load

        settings = self._settings.model
        network = Network(load(self._store.verified(name, version), device=settings.device or None), settings)
        network.compare(self._store.golden(name, version), settings.deviation)
        return network


def _on_gpu(model: Model) -> bool:
    import torch

    return torch.cuda.is_available() and not model.device.startswith("cpu")


def _share(replicas: Replicas) -> int:
    """CPU threads of one replica, if nobody says how many."""
    return max(1, int(replicas.cpus), (os.cpu_count() or 1) // max(1, replicas.max))


def _follow(depth: Depth, seconds: float) -> None:
    """Have the store looked at every so many seconds, until the models are gone or the process ends."""
    ended, models = threading.Event(), weakref.ref(depth)

    def watch() -> None:
        while not ended.wait(seconds):
            held = models()
            if held is None:
                return
            held.look()
            del held  # else nobody could let go of the models while this waits

    def end() -> None:
        ended.set()
        if threading.current_thread() is not thread:
            thread.join()  # a thread that loads weights while the interpreter is taken down brings the process down

    thread = threading.Thread(target=watch, name="depthray-store", daemon=True)
    thread.start()
    weakref.finalize(depth, end)
