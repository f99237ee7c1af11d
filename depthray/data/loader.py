"""Samples into batches: in an order and with changes that depend on seed and epoch, never on who loads them.

Step s of an epoch takes entries s*G to (s+1)*G of the epoch's permutation, G being the global batch; rank r of W takes
the r-th of W equal parts of them. Nothing else decides what a batch holds: 1 or 8 processes train on the same numbers.
With data.order=shards each rank has a permutation of its own part of the frames instead: see shard_order.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthray.batch import Batch, Sample, collate, map_tensors
from depthray.config.batch_size import check_batch_size
from depthray.config.sections import Augment, Curriculum, Data
from depthray.data.cameras.canonical_camera import with_camera
from depthray.data.columns.frame_groups import FrameGroups
from depthray.data.columns.step_frames import StepFrames, StepLayout, shuffled, uses_table
from depthray.data.loader_processes import LoaderProcesses, worker_count
from depthray.data.resize import resize_for_inference
from depthray.data.shard_order import ShardOrder
from depthray.data.shards.batch_memory import BatchMemory
from depthray.data.shards.prefetch import prefetch
from depthray.data.source import ShardedSource, Source
from depthray.data.train_samples import Key, TrainSamples, add_sparse, changes_on_device, collate_loaded
from depthray.errors import DataError

STEPS_AHEAD = 2  # batches that wait in memory besides the one in use

CPU = torch.device("cpu")

EvalBatch = tuple[list[int], Batch]  # indices, batch
T = TypeVar("T")
R = TypeVar("R")


class Plan(Sequence[Any]):
    """The keys of an epoch's steps, of which at most the frames are kept: keys are made when asked for."""

    def __init__(self, epoch: int, frames: NDArray[np.int64] | StepFrames) -> None:
        self.epoch, self.frames = epoch, frames  # (steps, micro-batches, frames), or (micro-batches, frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, position: Any) -> Any:
        """A step, as nested lists of keys; or for a slice the plan of these steps."""
        if isinstance(position, slice):
            return Plan(self.epoch, self.frames[position])
        return self._keys(self.frames[position].tolist())

    def micro_batches(self) -> Plan:
        """The plan of micro-batches, of which those of a step follow each other."""
        return Plan(self.epoch, self.frames.reshape(-1, self.frames.shape[-1]))

    def _keys(self, frames: Any) -> Any:
        return [self._keys(each) for each in frames] if isinstance(frames, list) else (self.epoch, frames)


class TrainLoader:
    """This rank's share of the training batches, and batches to evaluate with `eval_data`, by default `data`.

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
        eval_data: Data | None = None,
        device: torch.device = CPU,
    ) -> None:
        _check_batch(batch_size, len(indices), world_size=world_size, accumulate=accumulate)
        self.indices = indices
        self.seed = seed
        self.batch_size, self.rank, self.world_size, self.accumulate = batch_size, rank, world_size, accumulate
        self._shard_order, self._shuffle = shard_order, data.shuffle
        self._prefetch = partial(prefetch, source)
        self._eval_data = eval_data or data
        self._pins = device.type == "cuda"
        on_device = changes_on_device(section, data, device)
        options: dict[str, Any] = {"seed": seed, "curriculum": curriculum or Curriculum(), "on_device": on_device}
        self._samples = TrainSamples(source, data, section, **options)
        workers = worker_count(data.workers, device=device, on_device=on_device)
        self._processes = self._start(workers) if workers else None

    def _start(self, workers: int) -> LoaderProcesses:
        evaluate = partial(eval_group, self._samples.source, data=self._eval_data)
        return LoaderProcesses(self._samples, evaluate, self._prefetch, workers=workers, pin=self._pins)

    def steps_per_epoch(self, count: int | None = None) -> int:
        """Optimiser steps of an epoch over `count` frames, all by default; an incomplete last batch is dropped."""
        return (len(self.indices) if count is None else count) // self.batch_size

    def epoch(self, epoch: int, order: Sequence[int] | None = None, *, first_step: int = 0) -> Iterator[list[Batch]]:
        """One item per optimiser step: its micro-batches (b,C,H,W) in the dtypes of storage, on the CPU.

        Where a device changes samples they are of frames, with the changes that `to_device` makes.
        `order` restricts the epoch to some of the frames; they are shuffled all the same.
        """
        # Keys are skipped, not batches: a resumed epoch reads no frame that it does not train on.
        steps = self.plan(epoch, order)[first_step:]
        if self._processes is None:
            # hold=False: this process opens shards itself when it reads them.
            return load_ahead(self.load_step, self._prefetch(steps, hold=False))
        return self._from_processes(self._processes, steps)

    def plan(self, epoch: int, order: Sequence[int] | None = None) -> Plan:
        """The keys of this rank by step, micro-batch and position in it."""
        chosen = self.indices if order is None else order
        _check_batch(self.batch_size, len(chosen), world_size=self.world_size, accumulate=self.accumulate)
        share = self.batch_size // self.world_size
        steps = self.steps_per_epoch(len(chosen))
        parts = (self.accumulate, share // self.accumulate)  # micro-batches, and frames in each
        if self._shard_order is not None:
            part = self._shard_order.part(chosen, rank=self.rank, world_size=self.world_size)
            mine = self._shard_order.shuffle(part, epoch=epoch, rank=self.rank)[: steps * share]
            return Plan(epoch, mine.reshape(steps, *parts))
        if not uses_table(self._shuffle, len(chosen)):
            layout = StepLayout(self.batch_size, self.rank, self.world_size, self.accumulate)
            return Plan(epoch, StepFrames(shuffled(chosen, seed=self.seed, epoch=epoch), layout, range(steps)))
        # Global batches first, then this rank's part of each, so that their union is the same for any world size.
        table = np.random.default_rng([self.seed, epoch]).permutation(np.asarray(chosen))
        # (steps, ranks, micro-batches, frames) -> (steps, micro-batches, frames)
        return Plan(epoch, table[: steps * self.batch_size].reshape(steps, self.world_size, *parts)[:, self.rank])

    def eval_batches(self, groups: Sequence[list[int]]) -> Iterator[EvalBatch]:
        """The batches of groups of frames, by this loader's processes where it has some: not within an epoch."""
        for batches in self._eval_groups(groups):
            yield from batches

    def _eval_groups(self, groups: Sequence[list[int]]) -> Iterator[list[EvalBatch]]:
        source = self._samples.source
        # Shards are downloaded ahead for training alone: here they would be by each process.
        if self._processes is not None and not (isinstance(source, ShardedSource) and source.remote):
            return self._processes.evaluate(groups)
        return load_ahead(self._eval_group, groups)

    def _eval_group(self, group: list[int]) -> list[EvalBatch]:
        batches = eval_group(self._samples.source, group, data=self._eval_data)
        return [(indices, pin_memory(batch)) for indices, batch in batches] if self._pins else batches

    def load_step(self, parts: list[list[Key]]) -> list[Batch]:
        """The batches of the keys of a step's micro-batches, loaded here and now."""
        if not self._pins:
            return [collate_loaded([self._samples.load(key) for key in part]) for part in parts]
        return [self._load_pinned(part) for part in parts]

    def _load_pinned(self, keys: list[Key]) -> Batch:
        if not self._samples.on_device:
            return pin_memory(collate_loaded([self._samples.load(key) for key in keys]))
        memory = BatchMemory(len(keys))
        loaded = [self._samples.load(key, memory.place(number)) for number, key in enumerate(keys)]
        return pin_memory(collate_loaded(loaded, memory.whole))

    def _from_processes(self, processes: LoaderProcesses, steps: Plan) -> Iterator[list[Batch]]:
        batches = processes.train(steps.micro_batches())
        for _ in range(len(steps)):
            yield [next(batches) for _ in range(self.accumulate)]


def eval_batches(
    source: Source,
    indices: Sequence[int],
    data: Data,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    shard_order: ShardOrder | None = None,
) -> Iterator[EvalBatch]:
    """This rank's batches in order: indices, batch with inputs at the network's size and truth (B,1,H,W), native size.

    What a batch holds never depends on the world size. Frames of different size come as separate batches, and with
    `shard_order` those of different shards do too.
    """
    groups = eval_groups(indices, batch_size=batch_size, rank=rank, world_size=world_size, shard_order=shard_order)
    for batches in load_ahead(lambda group: eval_group(source, group, data=data), groups):
        yield from batches


def eval_groups(
    indices: Sequence[int], *, batch_size: int, rank: int, world_size: int, shard_order: ShardOrder | None
) -> FrameGroups:
    """The frames of each of this rank's batches in order, of equal or different size. See `eval_batches`."""
    if shard_order is not None:
        return shard_order.groups(indices, size=batch_size, rank=rank, world_size=world_size)
    # No padding and no repetition to make ranks equal, as DistributedSampler has it: either would change scores.
    return FrameGroups.of_size(indices, batch_size, first=rank, every=world_size)


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
        # Also when the caller stops in the middle of an epoch. Without waiting: the garbage collector may end this
        # generator in the pool's own thread, which cannot wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)


def pin_memory(batch: Batch) -> Batch:
    """The same batch in page-locked memory, from which copies to a GPU overlap with its work."""
    pinned = map_tensors(batch, Tensor.pin_memory)  # which gives back what is there already
    if "changes" in pinned:
        pinned["changes"] = pinned["changes"].pin_memory()
    return pinned


def eval_group(source: Source, indices: list[int], *, data: Data) -> list[EvalBatch]:
    """Frames -> a batch for each pair of native and network size, and data set, in order of first appearance."""
    groups: dict[tuple[object, ...], list[tuple[int, Sample]]] = {}
    for index in indices:
        native = with_camera(source.read(index), data)
        sample = resize_for_inference(native, data)
        truth = {
            key: native[key]
            for key in ("depth", "mask", "measurable", "teacher")
            if key in native and key not in data.inputs
        }
        # Sets are scored by protocols of their own.
        name = sample["source"] if data.sets else ""
        sizes = (native["image"].shape[:2] if truth else (), sample["image"].shape[:2], name)
        # Neither seed nor epoch: every evaluation gets the same samples.
        sample = add_sparse(sample, data, key=f"{sample['id']}:{data.sparse.pattern}")
        # Truth stays at its native size, at which it is scored; only the inputs are resized.
        groups.setdefault(sizes, []).append((index, {**sample, **truth}))  # type: ignore[typeddict-item]
    return [([i for i, _ in group], collate([sample for _, sample in group])) for group in groups.values()]


def _check_batch(batch_size: int, frames: int, *, world_size: int, accumulate: int) -> None:
    check_batch_size(batch_size, workers=world_size, accumulate=accumulate)
    parts = world_size * accumulate
    if frames < batch_size:
        fits = frames // parts * parts
        remedy = f"use train.batch_size={fits} or more frames" if fits else f"{parts} workers times parts need more"
        raise DataError(f"{frames} training frames do not fill one batch of {batch_size}; {remedy}")
