"""What a training step of the seed recipes costs, counted on the real networks: FLOP, bytes, operations, gradients.

The networks run on PyTorch's meta device: shapes without numbers, in a second, the same everywhere. FLOP come from
torch.utils.flop_counter. Bytes are those that each operation reads and writes under 16-bit autocast, unfused, which is
how eager PyTorch runs. Backward is taken as twice forward in FLOP: that is what the counter finds for dense networks,
while it takes the backward of grouped convolutions for dense.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from depthray import models
from depthray.models.layers.inputs import CHANNELS
from depthray.training import preflight

# Recipe -> (height, width) that its seed system trains at; the recipes themselves are set to sizes for a CPU.
SIZES = {
    "unet-resnet34": (320, 320),
    "fpn-resnet101": (480, 640),
    "bifpn-efficientnet-b0": (224, 224),
    "depthnet": (256, 256),
    "depthmasknet": (224, 224),
}
FIRST_BUCKET = 2**20  # bytes: DistributedDataParallel makes its first bucket small, to start early
BUCKET = 25 * 2**20  # bytes: its default bucket_cap_mb
IDS = ("semantics", "instances")
ONE_PLANE = (*IDS, "sparse", "mask")


class Bucket(NamedTuple):
    """Gradients that are averaged together."""

    bytes: int
    ready: float  # share of the backward pass after which all of them exist


class Network(NamedTuple):
    """Costs of a network; per image unless a comment says otherwise."""

    name: str
    size: tuple[int, int]
    parameters: int  # of the network
    forward: float  # FLOP
    touched: float  # bytes read and written, forward
    touched_back: float  # and backward
    fixed: float  # bytes of a step whatever its batch: weights and their casts
    launches: int  # operations of a forward pass, whatever its batch
    launches_back: int
    buckets: tuple[Bucket, ...]

    @property
    def gradient_bytes(self) -> int:
        """What every step averages over the GPUs: float32, also under autocast."""
        return 4 * self.parameters


@cache
def counted(name: str, size: tuple[int, int] | None = None) -> Network:
    """The network of a recipe at a size, by default the seed system's."""
    size = size or SIZES[name]
    made = preflight.load(name, [], training=False)

    def build() -> tuple[nn.Module, Callable[[int], Any]]:
        network = models.build_model(made.model, made.data.inputs)
        return network, lambda images: models.run(network, _batch(made.data.inputs, images, size))

    return _counted(name, size, build)


@cache
def resnet50() -> Network:
    """The classifier that published throughputs are of."""
    from torchvision.models import resnet50 as build_resnet50

    def build() -> tuple[nn.Module, Callable[[int], Any]]:
        network = build_resnet50()
        return network, lambda images: {"classes": network(torch.empty(images, 3, 224, 224))}

    return _counted("resnet50", (224, 224), build)


def _counted(name: str, size: tuple[int, int], build: Callable[[], tuple[nn.Module, Callable[[int], Any]]]) -> Network:
    """Two batches, which separate what grows with the batch from what does not."""
    with torch.device("meta"):
        network, run = build()
        parameters = [p for p in network.parameters() if p.requires_grad]
        few, many = _step(parameters, run, 2), _step(parameters, run, 4)
    forward, backward = (many.touched - few.touched) / 2, (many.touched_back - few.touched_back) / 2
    return Network(
        name,
        size,
        sum(p.numel() for p in parameters),
        (many.flop - few.flop) / 2,
        forward,
        backward,
        few.touched + few.touched_back - 2 * (forward + backward),
        few.launches,
        few.launches_back,
        bucketed(parameters, few.ready),
    )


class _Step(NamedTuple):
    flop: float
    touched: float
    touched_back: float
    launches: int
    launches_back: int
    ready: dict[int, float]  # id of a parameter -> share of the backward pass


def _step(parameters: list[nn.Parameter], run: Callable[[int], Any], images: int) -> _Step:
    """Forward and backward of a batch, with how far the backward pass was when each gradient was there."""
    seen: dict[int, float] = {}
    with Traffic() as traffic:
        hooks = [
            p.register_post_accumulate_grad_hook(lambda p: seen.update({id(p): traffic.bytes})) for p in parameters
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16), FlopCounterMode(display=False) as counter:
            prediction = run(images)
        flop, ops, touched = counter.get_total_flops(), traffic.operations, traffic.bytes
        total: Any = sum(each.float().sum() for each in tree_leaves(prediction) if isinstance(each, Tensor))
        total.backward()
        whole, operations = traffic.bytes - touched, traffic.operations - ops
    for hook, parameter in zip(hooks, parameters, strict=True):
        hook.remove()
        parameter.grad = None
    ready = {key: (at - touched) / whole for key, at in seen.items()}
    return _Step(flop, touched, whole, ops, operations, ready)


class Traffic(TorchDispatchMode):
    """Counts operations that start a kernel, and the bytes of their inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view and func.__name__.split(".")[0] not in ("detach", "empty", "empty_like", "empty_strided"):
            self.operations += 1
            self.bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, output)) if isinstance(t, Tensor))
        return output


def bucketed(parameters: list[nn.Parameter], ready: dict[int, float]) -> tuple[Bucket, ...]:
    """Parameters in buckets as DistributedDataParallel makes them after its first step: in order of arrival."""
    made: list[Bucket] = []
    size, last, limit = 0, 0.0, FIRST_BUCKET
    for parameter in sorted(reversed(parameters), key=lambda p: ready.get(id(p), 1.0)):
        size, last = size + 4 * parameter.numel(), ready.get(id(parameter), 1.0)  # 1: no gradient, so at the end
        if size >= limit:
            made.append(Bucket(size, last))
            size, last, limit = 0, 0.0, BUCKET
    return (*made, Bucket(size, last)) if size else tuple(made)


def _batch(inputs: tuple[str, ...], images: int, size: tuple[int, int]) -> Any:
    planes = {key: 1 if key in ONE_PLANE else CHANNELS[key] for key in inputs}
    return {
        key: torch.empty(images, count, *size, dtype=torch.long if key in IDS else torch.float32)
        for key, count in planes.items()
    }
