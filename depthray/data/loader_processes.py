"""Loader processes: they read and change the samples of a loader, in an order that they do not decide.

They are started by a server process that imports torch once and has neither threads nor CUDA: a fork of the training
process could copy locks that its threads hold, and NCCL's. They serve training and validation in turn.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from depthray.batch import Batch
from depthray.config import own_code
from depthray.data.source import Source
from depthray.data.train_samples import Key, TrainSamples, collate_loaded
from depthray.errors import DepthrayError, ResourceError

WORKER_CPUS = "DEPTHRAY_WORKER_CPUS"  # the variable in which Ray's workers have the number of their CPUs
MOST_AUTO = 16  # processes that data.workers=auto starts at most
MOST_READING = 4  # the same where they only read, and a device changes the samples

Batches = list[tuple[list[int], Batch]]


def worker_count(workers: int | str, *, device: torch.device, on_device: bool) -> int:
    """The loader processes of a training worker. `auto`: none on a CPU, which training needs, else by its CPUs."""
    if workers != "auto":
        return int(workers)
    if device.type == "cpu":
        return 0
    return max(1, min(given_cpus() - 1, MOST_READING if on_device else MOST_AUTO))


def given_cpus() -> int:
    """The CPUs of this training process: those that Ray gave it, or an equal share of those of its node."""
    if WORKER_CPUS in os.environ:
        return max(1, int(float(os.environ[WORKER_CPUS])))
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class EvalGroup(NamedTuple):
    """Frames that are read together, for evaluation."""

    indices: list[int]


class LoaderProcesses:
    """Loader processes of one loader. They start with their first use and end with this object."""

    def __init__(
        self,
        samples: TrainSamples,
        evaluate: Callable[[list[int]], Batches],
        prefetch: Callable[..., Iterable[list[Key]]],
        *,
        workers: int,
        pin: bool,
    ) -> None:
        self._keys = _Keys(prefetch)
        dataset = _Tasks(samples, evaluate)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with _silence_warnings(), _hidden_main(samples.source):
            multiprocessing.forkserver.ensure_running()  # it imports while the network is built
            self._loader: DataLoader[Any] = DataLoader(
                dataset,
                batch_sampler=self._keys,  # keys of a whole micro-batch go to a process, which also stacks it
                num_workers=workers,
                collate_fn=_collate,
                worker_init_fn=_init_process,
                persistent_workers=True,  # processes that started anew each epoch would open all files again
                pin_memory=pin,
                multiprocessing_context=context,
                generator=torch.Generator(),  # else each epoch would draw from the generator that dropout uses
            )
        self._source = samples.source
        # A second reference until this object is gone: if the cycle collector found both dead at once, it would close
        # the queues before the processes are asked to end, and each of those is then waited for in vain, 5 s.
        weakref.finalize(self, _release, self._loader)

    def train(self, batches: Sequence[list[Key]]) -> Iterator[Batch]:
        """The micro-batches of these keys."""
        self._keys.tasks = batches
        return self._results()

    def evaluate(self, groups: Sequence[list[int]]) -> Iterator[Batches]:
        """The batches of these groups of frames."""
        self._keys.tasks = _EvalTasks(groups)
        return self._results()

    def _results(self) -> Iterator[Any]:
        with _silence_warnings(), _hidden_main(self._source):
            results = iter(self._loader)
        for _ in range(len(self._keys)):
            yield _next(results)


class _EvalTasks(Sequence[list[EvalGroup]]):
    """Groups as tasks, made when it is their turn."""

    def __init__(self, groups: Sequence[list[int]]) -> None:
        self._groups = groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: Any) -> Any:
        return [EvalGroup(self._groups[number])]


class _Tasks(Dataset[Any]):
    """What the processes do: training samples by key, or batches of frames for evaluation."""

    def __init__(self, samples: TrainSamples, evaluate: Callable[[list[int]], Batches]) -> None:
        self.samples, self.evaluate = samples, evaluate

    def __getitem__(self, key: Key | EvalGroup) -> Any:
        if not isinstance(key, EvalGroup):
            return self.samples[key]
        try:
            return self.evaluate(key.indices)
        except DepthrayError as error:
            return error

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled apart: the module of an own form of data has to be imported before its objects can be read.
        code = (own_code.share(), self.samples.data.forms)
        return _receive, (*code, pickle.dumps((self.samples, self.evaluate)))


def _receive(shared: Sequence[Any], forms: Sequence[str], pickled: bytes) -> _Tasks:
    own_code.receive(shared)
    for form in forms:
        if own_code.is_of(own_code.SOURCE, form):
            own_code.resolve(own_code.SOURCE, form, where="a loader process")
    return _Tasks(*pickle.loads(pickled))  # noqa: S301 - of the process that started this one


class _Keys(Sampler[list[Any]]):
    """The tasks to come, read at the start of an epoch or of an evaluation."""

    def __init__(self, prefetch: Callable[..., Iterable[list[Key]]]) -> None:
        self.tasks: Sequence[list[Any]] = []
        self._prefetch = prefetch

    def __iter__(self) -> Iterator[list[Any]]:
        if isinstance(self.tasks, _EvalTasks):
            return iter(self.tasks)
        return iter(self._prefetch(self.tasks, hold=True))

    def __len__(self) -> int:
        return len(self.tasks)


def _collate(loaded: list[Any]) -> Any:
    for each in loaded:
        if isinstance(each, DepthrayError):
            return each
    return loaded[0] if isinstance(loaded[0], list) else collate_loaded(loaded)


def _next(results: Iterator[Any]) -> Any:
    try:
        result = next(results)
    except RuntimeError as error:
        # torch raises a bare RuntimeError, which only its text tells from others.
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ResourceError(f"a loader process died ({reason}); lower data.workers or free memory") from None
    if isinstance(result, DepthrayError):
        try:
            raise result
        finally:
            del result  # the traceback refers to this frame; a reference back would keep both alive
    return result


def _release(_: object) -> None:
    """Do nothing: the finalizer's reference to its argument was all that was needed."""


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silence torch's warning: the number of processes is the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


@contextmanager
def _hidden_main(source: Source) -> Iterator[None]:
    """While processes start, the main module is an empty one: each would import a script once more, and run it."""
    main = sys.modules["__main__"]
    sources = (source, *(each.source for each in getattr(source, "members", ())))
    if all(type(each).__module__ != "__main__" for each in sources):  # else they need it
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _init_process(_: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
    # The training process handles Ctrl-C: it still needs the batches up to its last step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
