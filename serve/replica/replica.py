"""One replica: the networks of the versions that the store serves, and requests to them in batches.

Ray Serve multiplies `Replica` (serve/app.py); nothing here imports Ray, so that all of it runs in a test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from depthray.errors import CheckpointError, DataError, DepthrayError
from depthray.runtimes.open import EAGER
from serve.registry import golden
from serve.registry.store import Pointer, Store
from serve.replica.batching import DeadlinePassed, DynamicBatcher, OutOfMemory
from serve.replica.network import Network
from serve.settings import ModelSettings, ReplicaSettings, Settings

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.batch import Sample

log = logging.getLogger("ray.serve")
Fault = Literal["", "elsewhere", "late", "memory", "broken", "nan", "input"]
PASS_TIMEOUT = 120.0  # seconds of one forward pass after which the replica is given up
RETRY_LOAD_AFTER = 60.0  # seconds until a version that could not be loaded is tried again
# Threads of one pass wait for each other at every layer, and whoever takes a core from one of them stops all; two
# passes side by side, each on half of the threads, do not.
CONCURRENT_PASSES = 2
HEALTHY_FOR = 10.0  # seconds for which a good answer proves that the networks work


@dataclass(frozen=True)
class Reply:
    """The answer to one request. A fault is a value, since exceptions change on their way through Ray."""

    version: str
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (h,w) of the network's own size
    timings: Mapping[str, float] = field(default_factory=dict)
    fault: Fault = ""
    detail: str = ""  # of "input": what is wrong with it, for the client


class Withdrawn(DepthrayError):
    """A version was unloaded while a request for it was in the queue."""


class ReplicaMetrics:
    """What a replica reports; this class records nothing, serve/monitoring/telemetry.py reports to Prometheus."""

    def record_reply(self, model: str, reply: Reply) -> None:
        """A request was answered; `model` is "" if the replica holds no model of the requested name."""

    def record_pass(self, model: str, images: int, seconds: float) -> None:
        """A forward pass of so many images ended."""

    def record_versions(self, pointers: Mapping[str, Pointer]) -> None:
        """The versions that are served, after each read of the store."""

    def record_swap(self, model: str, before: Pointer, now: Pointer) -> None:
        """Another version of a model is served."""

    def record_refusal(self, model: str) -> None:
        """A version could not be loaded."""


class Replica:
    """The models of the store, each in the current version and the one before; it follows changes of the store.

    `give_up` is called once no valid answer can be expected from this process any more.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        metrics: ReplicaMetrics | None = None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        import torch

        self._settings = Settings.model_validate(settings)
        self._metrics, self.give_up = metrics or ReplicaMetrics(), give_up
        model = self._settings.model
        self._threads = 0 if _on_gpu(model) else model.threads or _threads_per_replica(self._settings.model_replicas)
        if self._threads:
            torch.set_num_threads(self._threads)
        self._store = Store(self._settings.store)
        self._networks: dict[tuple[str, str], Network] = {}  # replaced, never changed: passes read it in other threads
        self._pointers: dict[str, Pointer] = {}
        self._refused: dict[tuple[str, str], float] = {}  # version -> when it is tried again
        self._proven = 0.0  # when a prediction was last valid
        self._failure = ""  # why no valid answer can be expected any more
        self._examination: asyncio.Task[None] | None = None
        self._batcher: DynamicBatcher[Sample, golden.Maps] = DynamicBatcher(
            self._run,
            max_batch_size=model.max_batch,
            concurrent_passes=CONCURRENT_PASSES if self._threads > 1 and not model.compile else 1,
            wait_timeout=model.batch_wait_timeout_ms / 1000,
            memory=(torch.OutOfMemoryError,),
        )
        self._load_all()
        _watch_store(self, self._settings.model.poll_seconds)

    async def predict(self, name: str, version: str, sample: Sample, seconds: float) -> Reply:
        """A prepared sample for name@version -> the network's maps within `seconds`, or a fault."""
        reply = await self._reply(name, version, sample, seconds)
        # Names come from clients: only those of models held here may become labels of metrics.
        is_known = not reply.fault or any(name == held for held, _ in self._networks)
        self._metrics.record_reply(name if is_known else "", reply)
        return reply

    async def _reply(self, name: str, version: str, sample: Sample, seconds: float) -> Reply:
        if (name, version) not in self._networks:
            return self._elsewhere(name)
        # The shapes, because only arrays of equal ones can be stacked.
        kind = (name, version, tuple((key, np.asarray(value).shape) for key, value in sorted(sample.items())))
        try:
            timed = await self._batcher(kind, sample, deadline=time.monotonic() + seconds)
        except DeadlinePassed:
            return Reply(version, fault="late")
        except Withdrawn:
            return self._elsewhere(name)
        except DataError as error:  # found by the network alone, such as class ids out of its range
            return Reply(version, fault="input", detail=str(error))
        except OutOfMemory:
            log.error("%s@%s: too little memory for one image", name, version)
            return await self._fail(version, "memory")
        except Exception:
            log.exception("%s@%s failed on an image", name, version)
            return await self._fail(version, "broken")
        if not all(np.isfinite(values).all() for values in timed.result.values()):
            log.error("%s@%s: its output is not finite everywhere", name, version)
            return await self._fail(version, "nan")
        self._proven = time.monotonic()
        return Reply(version, timed.result, {"queue": timed.queue, "model": timed.model})

    async def hello(self) -> bool:
        """Answer, which proves that the replica is up."""
        return True

    async def check_health(self) -> None:
        """Raises if a forward pass hangs or the networks predict no valid depth; Ray then replaces the replica."""
        if self._failure:
            raise RuntimeError(self._failure)
        since = self._batcher.busy_since
        if since is not None:  # busy: a probe would only wait in the same threads
            if time.monotonic() - since > PASS_TIMEOUT:
                raise RuntimeError("a forward pass hangs")
            return
        if time.monotonic() - self._proven > HEALTHY_FOR:
            await self._batcher.run_in_thread(self._probe)

    def _elsewhere(self, name: str) -> Reply:
        held = self._pointers.get(name)
        return Reply(held.current if held else "", fault="elsewhere")

    async def _fail(self, version: str, fault: Fault) -> Reply:
        """The reply to an image that failed, once it is known whether the image or the replica is the cause."""
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(self._examine())
        await asyncio.shield(self._examination)  # others may wait for it when this request is cancelled
        return Reply(version, fault=fault)

    async def _examine(self) -> None:
        """Predict a golden image; if that fails too, no other image will succeed here."""
        try:
            await self._batcher.run_in_thread(self._probe)
        except Exception as error:
            self._failure = str(error) or type(error).__name__
            log.critical("this replica gives up: %s", self._failure)
            self.give_up()

    def __del__(self) -> None:
        if hasattr(self, "_batcher"):  # not if __init__ has raised before
            self._batcher.close()

    def _run(self, kind: tuple[str, str, Any], samples: Sequence[Sample]) -> list[golden.Maps]:
        started = time.perf_counter()
        network = self._networks.get(kind[:2])
        if network is None:
            raise Withdrawn
        if self._batcher.concurrent_passes > 1:
            import torch

            is_alone = self._batcher.has_one_pass
            # The setting is of this thread alone, in which torch computes the pass.
            torch.set_num_threads(self._threads if is_alone else self._threads // CONCURRENT_PASSES)
        maps = network.run(samples)
        self._metrics.record_pass(kind[0], len(samples), time.perf_counter() - started)
        return maps

    def _probe(self) -> None:
        for network in list(self._networks.values()):
            network.probe()
        self._proven = time.monotonic()

    def follow_store(self) -> None:
        """Load what the store serves now; errors are logged, and the versions that are loaded go on answering."""
        try:
            self._load_all()
        except Exception:
            log.exception("the store cannot be read")

    def _load_all(self) -> None:
        """Hold the versions that the store serves; where one cannot be loaded, the one before stays."""
        for name in self._store.names():
            try:
                pointer = self._store.pointer(name)
                if pointer != self._pointers.get(name):
                    self._swap(name, pointer)
            except DepthrayError as error:
                log.error("%s: %s", name, error)
        if not self._networks:
            raise CheckpointError(f"{self._store.root}: no model that can be served; promote one")
        self._metrics.record_versions(self._pointers)

    def _swap(self, name: str, pointer: Pointer) -> None:
        """Load the new versions of a pointer, then serve it, then unload the versions that are not in it."""
        loaded = [version for version in pointer.versions if self._ensure_loaded(name, version)]
        before = self._pointers.get(name)
        if pointer.current not in loaded:
            if before or not loaded:
                return
            pointer = Pointer(loaded[0])  # a new replica starts with the version before rather than not at all
        self._pointers[name] = pointer
        keep = {(name, version) for version in pointer.versions}
        self._networks = {key: one for key, one in self._networks.items() if key[0] != name or key in keep}
        if before and before.current != pointer.current:
            self._metrics.record_swap(name, before, pointer)

    def _ensure_loaded(self, name: str, version: str) -> bool:
        """Load a version unless it is loaded; whether it is. One that failed is tried again only after a while."""
        key = (name, version)
        if key in self._networks or time.monotonic() < self._refused.get(key, 0):
            return key in self._networks
        try:
            network = self._load(name, version)
        except Exception as error:
            if key not in self._refused:
                self._metrics.record_refusal(name)
            self._refused[key] = time.monotonic() + RETRY_LOAD_AFTER
            log.error("%s@%s cannot be served: %s", name, version, error)
            return False
        self._networks = {**self._networks, key: network}
        return True

    def _load(self, name: str, version: str) -> Network:
        """A version in the fastest runtime that works here and predicts what the version did when it was promoted."""
        checkpoint = self._store.verified(name, version)
        *faster, last = self._runtimes(name, version, checkpoint).items()
        for runtime, folder in faster:
            try:
                return self._open(name, version, runtime, folder)
            except Exception as error:  # of many kinds: each runtime has its own
                log.warning("%s@%s: its export to %s is not used: %s", name, version, runtime, error)
        return self._open(name, version, *last)

    def _runtimes(self, name: str, version: str, checkpoint: Path) -> dict[str, Path]:
        """What a version can be opened by and from which folder, in the order in which they are tried; never empty."""
        runtime = self._settings.model.runtime
        found = self._store.runtimes(name, version)
        if runtime == EAGER or _on_gpu(self._settings.model):
            return {EAGER: checkpoint}
        if runtime == "auto":
            # What was slower than the version itself is of no use.
            faster = takewhile(lambda each: each[1] != checkpoint, found.items())
            return {**dict(faster), EAGER: checkpoint}
        if runtime not in found:
            raise CheckpointError(f"has no export to {runtime} (model.runtime); promote it again with that setting")
        return {runtime: found[runtime]}

    def _open(self, name: str, version: str, runtime: str, folder: Path) -> Network:
        from depthray.predict import load

        settings = self._settings.model
        options: dict[str, Any] = {"device": settings.device or None, "precision": settings.precision}
        options |= {"trust": settings.trust, "flip": settings.flip}
        network = Network(load(folder, **options), settings)
        network.compare(self._store.golden(name, version, runtime), settings.deviation)
        computed_by = network.predictor.runtime if runtime == EAGER else runtime  # a version may be an export itself
        log.info("%s@%s is loaded and warm, computed by %s", name, version, computed_by)
        if not settings.confidence:
            return network
        # Only now: the mean with the mirrored image is not what promotion computed.
        return Network(load(folder, **options, confidence=settings.confidence), settings)


def _on_gpu(model: ModelSettings) -> bool:
    import torch

    return torch.cuda.is_available() and not model.device.startswith("cpu")


def _threads_per_replica(replicas: ReplicaSettings) -> int:
    """CPU threads of one replica unless set: its reserved CPUs, or an equal share of the machine's if that is more."""
    return max(1, int(replicas.cpus), (os.cpu_count() or 1) // max(1, replicas.max))


def _watch_store(replica: Replica, seconds: float) -> None:
    """Read the store every so many seconds in a thread, until the replica is deleted or the process ends."""
    ended, reference = threading.Event(), weakref.ref(replica)

    def watch() -> None:
        while not ended.wait(seconds):
            held = reference()
            if held is None:
                return
            held.follow_store()
            del held  # else the replica could never be deleted while this waits

    def end() -> None:
        ended.set()
        if threading.current_thread() is not thread:
            thread.join()  # a thread that loads weights while the interpreter is torn down crashes the process

    thread = threading.Thread(target=watch, name="depthray-store", daemon=True)
    thread.start()
    weakref.finalize(replica, end)
