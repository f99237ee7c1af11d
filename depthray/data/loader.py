"""Samples into batches: in an order and with changes that depend on seed and epoch, never on who loads them.

Step s of an epoch takes entries s*G to (s+1)*G of the epoch's permutation, G being the global batch; rank r of W takes
the r-th of W equal parts of them. Nothing else decides what a batch holds: 1 or 8 processes train on the same numbers.
With data.order=shards each rank has a permutation of its own part of the frames instead: see shard_order.py.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from depthray.batch import Batch, Sample, collate
from depthray.config.batch_size import check_batch_size
from depthray.config.sections import Augment, Curriculum, Data
from depthray.data import sparse
from depthray.data.augmentation.augment import augment
from depthray.data.augmentation.geometry import zoom_depth
from depthray.data.curriculum import depth_scale_at, size_at
from depthray.data.resize import resize_for_inference, size_for_inference
from depthray.data.shard_order import ShardOrder
from depthray.data.shards.prefetch import prefetch
from depthray.data.source import Source, StoredSource
from depthray.errors import DataError, DepthrayError, ResourceError

STEPS_AHEAD = 2  # batches that wait in memory besides the one in use

Key = tuple[int, int]  # epoch, index of the frame in its source
Loaded = Sample | DepthrayError
T = TypeVar("T")
R = TypeVar("R")


class TrainLoader:
    """This rank's share of the training batches.

    Raises UsageError where the global batch cannot be divided, DataError where the frames do not fill one.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        data: Data,
        section: Augment,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        curriculum: Curriculum | None = None,
        shard_order: ShardOrder | None = None,
    ) -> None:
        _check_batch(batch_size, len(indices), world_size=world_size, accumulate=accumulate)
        self.indices = indices
        self.seed = seed
        self.batch_size, self.rank, self.world_size, self.accumulate = batch_size, rank, world_size, accumulate
        self._shard_order = shard_order
        self._prefetch = partial(prefetch, source)
        self._samples = _Samples(source, data, section, seed=seed, curriculum=curriculum or Curriculum())
        self._keys = _EpochKeys(self._prefetch)
        self._processes = _start_processes(self._samples, self._keys, data.workers) if data.workers else None
        # A second reference until this object is gone: if the cycle collector found both dead at once, it would close
        # the queues before the processes are asked to end, and each of those is then waited for in vain, 5 s.
        weakref.finalize(self, _release, self._processes)

    def steps_per_epoch(self, count: int | None = None) -> int:
        """Optimiser steps of an epoch over `count` frames, all by default; an incomplete last batch is dropped."""
        return (len(self.indices) if count is None else count) // self.batch_size

    def epoch(self, epoch: int, order: Sequence[int] | None = None, *, first_step: int = 0) -> Iterator[list[Batch]]:
        """One item per optimiser step: its micro-batches (b,C,H,W), colour uint8, on the CPU.

        `order` restricts the epoch to some of the frames; they are shuffled all the same.
        """
        # Keys are skipped, not batches: a resumed epoch reads no frame that it does not train on.
        steps = self.plan(epoch, order)[first_step:]
        if self._processes is None:
            # hold=False: this process opens shards itself when it reads them.
            return load_ahead(self._load_step, self._prefetch(steps, hold=False))
        self._keys.batches = [part for step in steps for part in step]
        return self._from_processes(self._processes, len(steps))

    def plan(self, epoch: int, order: Sequence[int] | None = None) -> list[list[list[Key]]]:
        """The keys of this rank by step, micro-batch and position in it."""
        frames = np.asarray(self.indices if order is None else order)
        _check_batch(self.batch_size, len(frames), world_size=self.world_size, accumulate=self.accumulate)
        share = self.batch_size // self.world_size
        steps = self.steps_per_epoch(len(frames))
        parts = (self.accumulate, share // self.accumulate)  # micro-batches, and frames in each
        if self._shard_order is None:
            # Global batches first, then this rank's part of each, so that their union is the same for any world size.
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(frames)
            # (steps, ranks, micro-batches, frames) -> (steps, micro-batches, frames)
            mine = shuffled[: steps * self.batch_size].reshape(steps, self.world_size, *parts)[:, self.rank]
        else:
            part = self._shard_order.part(frames, rank=self.rank, world_size=self.world_size)
            mine = self._shard_order.shuffle(part, epoch=epoch, rank=self.rank)[: steps * share].reshape(steps, *parts)
        return [[[(epoch, index) for index in part] for part in step] for step in mine.tolist()]

    def _load_step(self, parts: list[list[Key]]) -> list[Batch]:
        return [_pin(collate([self._samples.load(key) for key in part])) for part in parts]

    def _from_processes(self, processes: DataLoader[Loaded], steps: int) -> Iterator[list[Batch]]:
        with _silence_warnings():
            batches = iter(processes)
        for _ in range(steps):
            yield [_next_batch(batches) for _ in range(self.accumulate)]


def eval_batches(
    source: Source,
    indices: Sequence[int],
    data: Data,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    shard_order: ShardOrder | None = None,
) -> Iterator[tuple[list[int], Batch]]:
    """This rank's batches in order: indices, batch with inputs at the network's size and truth (B,1,H,W), native size.

    What a batch holds never depends on the world size. Frames of different size come as separate batches, and with
    `shard_order` those of different shards do too.
    """
    if shard_order is None:
        # No padding and no repetition to make ranks equal, as DistributedSampler has it: either would change scores.
        starts = range(rank * batch_size, len(indices), world_size * batch_size)
        groups = [list(indices[start : start + batch_size]) for start in starts]
    else:
        groups = shard_order.groups(indices, size=batch_size, rank=rank, world_size=world_size)
    for batches in load_ahead(lambda group: _eval_group(source, group, data), groups):
        yield from batches


def load_ahead(make: Callable[[T], R], keys: Iterable[T], *, depth: int = STEPS_AHEAD) -> Iterator[R]:
    """make(key) of each key in order, computed by a thread that runs up to `depth` items ahead."""
    # One thread suffices where decoding keeps up, since it releases the interpreter lock; data.workers adds processes.
    pool = ThreadPoolExecutor(1, thread_name_prefix="depthray-loader")
    pending: deque[Future[R]] = deque()
    try:
        for key in keys:
            pending.append(pool.submit(make, key))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # also when the caller stops in the middle of an epoch


class _Samples(Dataset[Loaded]):
    """Training samples by key: read, changed, resized."""

    def __init__(self, source: Source, data: Data, section: Augment, *, seed: int, curriculum: Curriculum) -> None:
        self.source, self.data, self.section, self.seed, self.curriculum = source, data, section, seed, curriculum

    def load(self, key: Key) -> Sample:
        """(epoch, index) -> sample (h,w) of the epoch's size."""
        epoch, index = key
        native = self._read(index)
        height, width = native["image"].shape[:2]
        sample = augment(
            native,
            self.section,
            seed=self.seed,
            epoch=epoch,
            size=size_at(epoch, self.curriculum, last=self.data.size),
            frame_size=size_for_inference((height, width), self.data),
            measured=(self.data.min_depth, self.data.max_depth),
        )
        scale = depth_scale_at(epoch, self.curriculum, last=self.data.size)
        if scale != 1:
            sample = zoom_depth(sample, scale, measured=(0, math.inf))  # beyond max_depth it is void as ever
        return _add_sparse(sample, self.data, key=f"{self.seed}:{epoch}:{sample['id']}")

    def _read(self, index: int) -> Sample:
        # Sparse depth is sampled here from depth, which has to be metres then.
        if "sparse" not in self.data.inputs and isinstance(self.source, StoredSource):
            return self.source.read_stored(index)
        return self.source.read(index)

    def __getitem__(self, key: Key) -> Loaded:
        try:
            return self.load(key)
        except DepthrayError as error:
            # Raised in the training process: a loader process would wrap it into its own traceback.
            return error


class _EpochKeys(Sampler[list[Key]]):
    """Micro-batches of the epoch to come, read by the loader processes at its start."""

    def __init__(self, prefetch: Callable[..., Iterable[list[Key]]]) -> None:
        self.batches: list[list[Key]] = []
        self._prefetch = prefetch

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self._prefetch(self.batches, hold=True))

    def __len__(self) -> int:
        return len(self.batches)


def _start_processes(samples: _Samples, keys: _EpochKeys, workers: int) -> DataLoader[Loaded]:
    forks = "fork" in multiprocessing.get_all_start_methods()
    with _silence_warnings():
        return DataLoader(
            samples,
            batch_sampler=keys,  # keys of a whole micro-batch go to a process, which also stacks it
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_init_process,
            persistent_workers=True,  # processes that started anew each epoch would open all files again
            pin_memory=_on_gpu(),
            multiprocessing_context="fork"
            if forks
            else None,  # a fork starts at once; a new process imports torch first
            generator=torch.Generator(),  # else each epoch would draw from the generator that dropout uses
        )


def _release(_: object) -> None:
    """Do nothing: the finalizer's reference to its argument was all that was needed."""


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silence two warnings: the number of processes is the user's choice, and a fork with our threads is safe.

    Python 3.12 warns of the latter because a thread might hold a lock; ours hold none that a loader process takes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        yield


def _init_process(_: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
    # The training process handles Ctrl-C: it still needs the batches up to its last step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _collate(samples: list[Loaded]) -> Batch | DepthrayError:
    for sample in samples:
        if isinstance(sample, DepthrayError):
            return sample
    return collate(samples)  # type: ignore[arg-type]


def _next_batch(batches: Iterator[Batch | DepthrayError]) -> Batch:
    try:
        batch = next(batches)
    except RuntimeError as error:
        # torch raises a bare RuntimeError, which only its text tells from others.
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ResourceError(f"a loader process died ({reason}); lower data.workers or free memory") from None
    if isinstance(batch, DepthrayError):
        try:
            raise batch
        finally:
            del batch  # the traceback refers to this frame; a reference back would keep both alive
    return batch


def _pin(batch: Batch) -> Batch:
    """The same batch in page-locked memory, from which copies to a GPU overlap with its work."""
    if not _on_gpu():
        return batch
    return {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in batch.items()}  # type: ignore[return-value]


def _on_gpu() -> bool:
    """Whether this process computes on a GPU. To pin memory beside a GPU that others reserved would open it, 0.5 GB."""
    # `distributed.start` and every network on a GPU have opened it by now.
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _eval_group(source: Source, indices: list[int], data: Data) -> list[tuple[list[int], Batch]]:
    """Frames -> a batch for each pair of native and network size among them, in order of first appearance."""
    groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, Sample]]] = {}
    for index in indices:
        native = source.read(index)
        sample = resize_for_inference(native, data)
        truth = {key: native[key] for key in ("depth", "mask") if key in native and key not in data.inputs}
        sizes = (native["image"].shape[:2] if truth else (), sample["image"].shape[:2])
        # Neither seed nor epoch: every evaluation gets the same samples.
        sample = _add_sparse(sample, data, key=f"{sample['id']}:{data.sparse.pattern}")
        # Truth stays at its native size, at which it is scored; only the inputs are resized.
        groups.setdefault(sizes, []).append((index, {**sample, **truth}))  # type: ignore[typeddict-item]
    return [([i for i, _ in group], _pin(collate([sample for _, sample in group]))) for group in groups.values()]


def _add_sparse(sample: Sample, data: Data, *, key: str) -> Sample:
    """Sample (h,w) -> the same with sparse depth where that is an input: it is derived from depth, not read."""
    return sparse.attach(sample, data.sparse, key=key) if "sparse" in data.inputs else sample


def _check_batch(batch_size: int, frames: int, *, world_size: int, accumulate: int) -> None:
    check_batch_size(batch_size, workers=world_size, accumulate=accumulate)
    parts = world_size * accumulate
    if frames < batch_size:
        fits = frames // parts * parts
        remedy = f"use train.batch_size={fits} or more frames" if fits else f"{parts} workers times parts need more"
        raise DataError(f"{frames} training frames do not fill one batch of {batch_size}; {remedy}")
