"""A network as other runtimes take it: tensors in, tensors out, with all of its arithmetic inside.

What a batch's loader does for a network of ours is in the graph: colour of 0 to 255 is divided and normalised, sparse
depth is filled, logits of masks become probabilities, and the deviation of ln depth one in metres. Batch
normalisation and matrices of LoRA are in the weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from depthray.batch import COLOURS
from depthray.errors import UsageError
from depthray.exporting.folding import fold_batchnorm
from depthray.models import INTRINSICS
from depthray.models.layers.inputs import centred_cameras
from depthray.models.layers.symbolic_size import MAX_SIDE, tracing
from depthray.runtimes.export_folder import MASKS

# Largest difference from the network, relative to the map's largest value. Another order of rounding makes 1.2e-5 of 50
# layers, a layer that something else reads as well far more, and the gate allows 1e-4 of all that an export changes.
SAME = 5e-5
LARGEST_BATCH = 1024
LEAST_SIDE = 33  # pixels: below, maps of 1/32 of the size are single pixels, which tracing sets apart
TRACED = 64  # pixels of the shorter side of the example
CLASSES = 8  # ids in the example
AUXILIARY = {"log_sigma": "sigma", "valid": "valid"}  # maps of a network along with depth, and the outputs made of them

Inputs = tuple[Tensor, ...]  # (B,C,H,W) each, a camera (B,3,3), in the order of a graph's inputs


class ExportGraph(nn.Module):
    """Tensors (B,C,H,W) in the order of `inputs` -> tensors (B,1,h,w) in the order of `outputs`."""

    def __init__(self, network: nn.Module, targets: Sequence[str]) -> None:
        super().__init__()
        model: Any = network
        self.network = network.eval().requires_grad_(False)
        self.inputs: tuple[str, ...] = tuple(model.inputs)
        known = getattr(model, "outputs", ("depth",))
        self.outputs = tuple(key for key in targets if key in known and key in ("depth", "mask"))
        if "depth" in self.outputs:
            self.outputs += tuple(name for key, name in AUXILIARY.items() if key in known)
        if not self.outputs:
            raise UsageError(f"this network predicts {', '.join(known)}, none of {', '.join(targets)}")
        # Height and width of the tensors are multiples of it.
        self.stride = math.lcm(model.stride, *(getattr(part, "graph_stride", 1) for part in model.modules()))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """(B,3,H,W) colour in 0 to 255, (B,1,H,W) other inputs -> (B,1,h,w) metres or probability; float32"""
        batch: Any = dict(zip(self.inputs, tensors, strict=True))
        batch |= {key: batch[key] / 255.0 for key in COLOURS if key in batch}
        prediction: Any = dict(self.network(batch))
        if "sigma" in self.outputs:
            prediction["sigma"] = prediction["depth"] * torch.exp(prediction["log_sigma"])
        return tuple(prediction[key].sigmoid() if key in MASKS else prediction[key] for key in self.outputs)

    def one_pass(self, *tensors: Tensor) -> None:
        """Call each network once, also where `forward` shows it the mirrored image besides."""
        batch: Any = dict(zip(self.inputs, tensors, strict=True))
        parts: Any = getattr(self.network, "networks", [self.network])
        for network in parts:
            network(batch)

    @property
    def smallest_side(self) -> int:
        """Pixels of the smallest side that is traced."""
        return LEAST_SIDE if self.stride == 1 else 2 * self.stride

    def round_up(self, side: int) -> int:
        """The smallest multiple of the stride that is not below a side."""
        return math.ceil(side / self.stride) * self.stride

    def example(self, batch: int, height: int, width: int) -> Inputs:
        """Inputs of random values, always the same, each a tensor of its own: tracing takes equal ones for one."""
        generator = torch.Generator().manual_seed(0)
        return tuple(_random_input(key, (batch, height, width), generator) for key in self.inputs)


@dataclass(frozen=True, eq=False)
class TracedGraph:
    """A graph as torch.export has traced it."""

    graph: ExportGraph
    program: ExportedProgram
    dynamic_batch: bool
    dynamic_size: bool
    largest_side: int
    size: tuple[int, int]  # the only one where `dynamic_size` is false
    note: str = ""  # why a size or batch is fixed

    @property
    def smallest_side(self) -> int:
        """Pixels of the smallest side that it was traced for."""
        return self.graph.smallest_side if self.dynamic_size else min(self.size)


def build_graph(network: nn.Module, targets: Sequence[str]) -> ExportGraph:
    """The graph of a network, which is changed: batch normalisation is folded where that leaves its maps the same."""
    graph = ExportGraph(network, targets)
    example = graph.example(2, *_example_size(graph))
    with torch.no_grad():
        expected = graph(*example)
        undo = fold_batchnorm(network, lambda: graph.one_pass(*example))
        if difference(graph(*example), expected) > SAME:  # a layer that something else reads as well
            undo()
    return graph


def difference(tensors: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of two sets of maps, relative to each map's largest value; infinite where one is NaN."""
    shares = [
        ((one - other).abs().max() / other.abs().max().clamp(min=1e-12)).item()
        for one, other in zip(tensors, expected, strict=True)
    ]
    return max(math.inf if math.isnan(share) else share for share in shares)


def trace(graph: ExportGraph, *, size: tuple[int, int], largest_side: int = MAX_SIDE) -> TracedGraph:
    """The program of a graph, of any batch and size up to `largest_side` where the network allows that.

    `size` is (H,W) that it is for where it does not. Raises UsageError where the network cannot be traced at all.
    """
    largest_side = min(largest_side, MAX_SIDE) if "sparse" in graph.inputs else largest_side
    failure = ""
    for batch, sides in ((True, True), (True, False), (False, False)):
        shape = _example_size(graph) if sides else size
        example = graph.example(2 if batch else 1, *shape)
        try:
            with tracing(largest_side):
                program = _export(graph, example, _dims(graph, batch, sides, largest_side))
        except Exception as error:  # of many kinds, as torch.export raises whatever the traced code did
            failure = failure or " ".join(str(error).split())[:200]
            continue
        return TracedGraph(graph, program, batch, sides, largest_side, size, failure)
    raise UsageError(f"torch.export cannot trace this network: {failure}")


def _export(graph: ExportGraph, example: Inputs, dims: dict[int, Any]) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        by_input = ({0: dims[0]} if key == INTRINSICS and dims else dims for key in graph.inputs)
        shapes = (tuple(by_input),)  # forward takes all of them as one variadic argument
        return torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)


def _dims(graph: ExportGraph, batch: bool, sides: bool, largest_side: int) -> dict[int, Any]:
    """Axis -> its dimension, of those that are not fixed."""
    dims: dict[int, Any] = {0: Dim("batch", min=1, max=LARGEST_BATCH)} if batch else {}
    if not sides:
        return dims
    dim: Callable[[str], Any]
    if graph.stride == 1:
        dim = lambda name: Dim(name, min=graph.smallest_side, max=largest_side)  # noqa: E731
    else:
        least, most = (side // graph.stride for side in (graph.smallest_side, largest_side))
        dim = lambda name: graph.stride * Dim(f"{name}_steps", min=least, max=most)  # noqa: E731
    return {**dims, 2: dim("height"), 3: dim("width")}


def _random_input(key: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(B,3,H,W) colour, (B,3,3) cameras or (B,1,H,W) anything else"""
    batch, height, width = shape
    if key == INTRINSICS:
        return centred_cameras(width * (0.5 + torch.rand(batch, generator=generator)), (height, width))
    values = torch.rand(batch, 3, height, width, generator=generator)
    if key in COLOURS:
        return 255 * values
    first, second = values[:, :1], values[:, 1:2]
    if key == "sparse":
        return torch.where(first > 0.95, 5 * second, 0.0)
    return (first > 0.5).float() if key == "mask" else (CLASSES * first).long()


def _example_size(graph: ExportGraph) -> tuple[int, int]:
    """A small size whose sides differ and are several strides long."""
    steps = max(3, math.ceil(TRACED / graph.stride))
    return steps * graph.stride, (steps + max(1, steps // 3)) * graph.stride
