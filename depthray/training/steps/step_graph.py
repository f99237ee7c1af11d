"""Forward and backward of a step as one CUDA graph: hundreds of kernels that the host launches by one call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from depthray import distributed
from depthray.batch import Batch
from depthray.errors import UsageError
from depthray.training.steps.kept_buffers import KeptBuffers

WARM_UP = 3  # runs before a capture, in which libraries choose kernels and reserve memory

Compute = Callable[[list[Batch]], Tensor]
Replay = Callable[[], object]


class StepGraph:
    """Captures what a step computes up to its gradients, once for each size of its batches, and replays it after that.

    A replay reads and writes the memory of the capture: batches are copied there, and gradients are found there.
    `most` is how many sizes and losses a run may go through; beyond it, sizes change too often for graphs to be of use.
    """

    def __init__(self, model: nn.Module, *, most: int) -> None:
        self._model, self._captures_left = model, most
        self._key: Hashable = None
        self._inputs: list[Tensor] = []
        self._gradients: list[tuple[nn.Parameter, Tensor | None]] = []

    def run(self, batches: list[Batch], compute: Compute, *, key: Hashable) -> Tensor:
        """compute(batches) by a replay: (B,) of it, and gradients. It depends on the tensors and the key alone."""
        given = [_tensors(batch) for batch in batches]
        signature = key, tuple((name, value.shape, value.dtype) for batch in given for name, value in batch.items())
        if signature != self._key:
            self._capture(given, compute)
            self._key = signature
        torch._foreach_copy_(self._inputs, [value for batch in given for value in batch.values()])
        self._replay()
        for parameter, gradient in self._gradients:  # which the optimiser's zero_grad has removed
            parameter.grad = gradient
        return self._result.clone()  # the next replay overwrites it

    def _capture(self, batches: list[dict[str, Tensor]], compute: Compute) -> None:
        if not self._captures_left:
            raise UsageError(
                "train.cuda_graph=true: the size of the batches, or what they hold, changes within an epoch, for which "
                "a graph would be captured again and again; set train.cuda_graph=false"
            )
        self._captures_left -= 1
        self._gradients, self._key = [], None  # free the memory of the last graph before the next is made
        static: Any = [{name: value.clone() for name, value in batch.items()} for batch in batches]
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        # What runs before the first replay leaves no trace: neither in statistics nor in the numbers of dropout.
        kept = KeptBuffers(self._model)
        kept.keep()
        with torch.random.fork_rng([weight.device for weight in parameters[:1] if weight.is_cuda]):
            self._result, self._replay = capture(lambda: compute(static), parameters)
        kept.restore(True)
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]
        self._inputs = [value for batch in static for value in batch.values()]


def capture(compute: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Replay]:
    """The result of compute(), which sets gradients, and what computes it and them anew in the same memory."""

    def drop_gradients() -> None:  # so that the graph writes gradients, and does not add to those of the step before
        for parameter in parameters:
            parameter.grad = None

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # a capture needs a stream of its own
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            drop_gradients()
            compute()
    current.wait_stream(stream)
    drop_gradients()
    graph = torch.cuda.CUDAGraph()
    try:
        # thread_local: the thread of the loader may reserve pinned memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = compute()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"train.cuda_graph=true: the network or its loss cannot be captured ({reason}); set train.cuda_graph=false"
        ) from None
    return result, graph.replay


def check_graph(device: torch.device) -> None:
    """Raise UsageError where train.cuda_graph=true cannot be done."""
    if device.type != "cuda":
        raise UsageError("train.cuda_graph=true is for a GPU, and this run is on the CPU; leave it out, or add --gpu")
    if distributed.world_size() > 1:
        raise UsageError(
            "train.cuda_graph=true is for one GPU: gradients that several workers average cannot be captured; leave it "
            "out, or train with --workers 1"
        )


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}
