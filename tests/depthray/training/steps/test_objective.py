"""Compiled and captured steps against plain ones, without a compiler or a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from depthray import distributed
from depthray.batch import Batch
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.state import begin
from depthray.training.steps import batch_transfer, step_graph
from depthray.training.steps.batch_transfer import BatchTransfer
from depthray.training.steps.objective import Objective
from depthray.training.steps.step_graph import StepGraph, check_graph

# The compiler looks at the gradient of a prediction, and hides the warning of that; here warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

CPU = torch.device("cpu")
SMALL = ["data.size=32,64", "data.frames=24", "train.batch_size=4", "train.precision=fp32", "train.log_seconds=60"]


def small(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.open(small())


def weights_of(recipe: Recipe, frames: Frames) -> dict[str, Tensor]:
    state = begin(recipe, CPU)
    list(fit(recipe, state, Frames(recipe, frames.source)))
    return state.model.state_dict()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What torch.compile traces, by the first operation, while it runs everything as it is."""
    traced: list[str] = []
    real = torch.compile

    def backend(module: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        traced.append("loss" if "abs" in module.code else "network")
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend=backend, **options))
    yield traced
    torch._dynamo.reset()


def test_compiled_steps_train_to_the_same_weights_and_compile_anew_only_for_a_size(
    frames: Frames, graphs: list[str]
) -> None:
    words = ["train.epochs=3", "curriculum.sizes=[[32,32]]", "curriculum.epochs_per_size=1", "loss.l1=1"]
    ends = [weights_of(small(f"train.compile={wanted}", *words), frames) for wanted in ("true", "false")]
    assert sorted(graphs) == ["loss", "loss", "network", "network"]  # one of each for each size, in three epochs
    assert [key for key, value in ends[0].items() if not torch.equal(ends[1][key], value)] == []


def test_a_compiled_network_of_several_processes_holds_gradients_back() -> None:
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    held: list[bool] = []

    @contextlib.contextmanager
    def no_sync() -> Iterator[None]:
        held.append(True)
        yield

    wrapped.no_sync = no_sync  # type: ignore[method-assign]
    for network in (wrapped, torch.compile(wrapped)):
        for hold in (True, False):
            with distributed.hold_gradients(network, hold=hold):
                pass
    assert held == [True, True]


def captured(compute: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Callable[[], None]]:
    """As `step_graph.capture` does: what is computed later is computed into the memory of the first time."""
    for parameter in parameters:
        parameter.grad = None
    result = compute()
    gradients = [parameter.grad for parameter in parameters]

    def replay() -> None:
        for parameter in parameters:
            parameter.grad = None
        result.copy_(compute())
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                gradient.copy_(parameter.grad)

    return result, replay


@pytest.mark.parametrize("words", [["train.accumulate=2", "optim.average=ema"], ["curriculum.sizes=[[32,32]]"]])
def test_captured_steps_train_to_the_same_weights(
    frames: Frames, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[int] = []

    def capture(compute: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> Any:
        captures.append(1)
        return captured(compute, parameters)

    monkeypatch.setattr(step_graph, "capture", capture)
    monkeypatch.setattr("depthray.training.state.check_graph", lambda device: None)
    words = [*words, "train.epochs=2", "curriculum.epochs_per_size=1", "model.encoder=timm/test_efficientnet"]
    ends = [weights_of(small(f"train.cuda_graph={wanted}", *words), frames) for wanted in ("true", "false")]
    assert len(captures) == (2 if "sizes" in words[0] else 1)
    assert [key for key, value in ends[0].items() if not torch.equal(ends[1][key], value)] == []


def test_a_graph_for_sizes_that_keep_changing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "capture", captured)
    model = nn.Conv2d(1, 1, 1)
    graph = StepGraph(model, most=1)

    def compute(batches: list[Batch]) -> Tensor:
        loss = model(batches[0]["image"]).sum(dim=(1, 2, 3))
        loss.sum().backward()
        return loss.detach()

    for value in (1.0, 2.0):
        image = torch.full((2, 1, 4, 4), value)
        result = graph.run([{"image": image, "id": [str(value)] * 2}], compute, key=0)
        torch.testing.assert_close(result, model(image).detach().sum(dim=(1, 2, 3)))
        assert model.weight.grad is not None and model.weight.grad.item() == 32 * value
        model.zero_grad(set_to_none=True)
    with pytest.raises(UsageError, match=r"train\.cuda_graph=true: the size of the batches"):
        graph.run([{"image": torch.zeros(2, 1, 8, 8)}], compute, key=0)


def test_a_graph_on_a_cpu_or_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"train\.cuda_graph=true is for a GPU"):
        begin(small("train.cuda_graph=true"), CPU)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UsageError, match=r"--workers 1"):
        check_graph(torch.device("cuda"))


def test_void_pixels_are_given_in_every_batch_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "capture", captured)
    monkeypatch.setattr("depthray.training.state.check_graph", lambda device: None)
    recipe = preflight.load("masknet", ["train.cuda_graph=true", "train.precision=fp32", "curriculum.sizes=[]"])
    objective = Objective(recipe, begin(recipe, CPU))
    image = torch.rand(2, 3, 32, 32)
    batch: Batch = {"image": image, "background": image, "mask": torch.ones(2, 1, 32, 32)}
    void: Batch = {**batch, "mask_valid": torch.ones(2, 1, 32, 32, dtype=torch.bool)}
    # Of other keys the second would have to be captured, for which nothing is left.
    values = [objective.backward([each], recipe.loss, parts=1, images=2) for each in (batch, void)]
    assert torch.equal(*values)


def test_a_batch_is_copied_by_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Stream:
        def __init__(self, device: object = None) -> None:
            self.device = device

        def wait_stream(self, other: object) -> None:
            order.append("wait")

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        order.append("begin")
        yield
        order.append("end")

    def move(batch: Batch, device: torch.device, **options: float) -> Batch:
        order.append("copy")
        recorded = SimpleNamespace(record_stream=lambda stream: order.append("record"))
        monkeypatch.setattr(batch_transfer, "Tensor", SimpleNamespace)
        return {**batch, "image": recorded}  # type: ignore[typeddict-item]

    for name, value in {"Stream": Stream, "current_stream": Stream, "stream": on}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(batch_transfer, "to_device", move)
    transfer = BatchTransfer(torch.device("cuda"), min_depth=0, max_depth=10)
    transfer({"id": ["a"]})
    assert order == ["begin", "copy", "end", "wait", "record"]
    order.clear()
    BatchTransfer(CPU, min_depth=0, max_depth=10)({"id": ["a"]})
    assert order == ["copy"]


def test_a_capture_follows_runs_that_warm_up_and_adds_to_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = nn.Parameter(torch.ones(3))
    runs: list[bool] = []
    fails: list[str] = []

    def compute() -> Tensor:
        runs.append(weight.grad is None)
        if fails and len(runs) > step_graph.WARM_UP:
            raise RuntimeError(fails[0])
        (weight * 2).sum().backward()
        return torch.ones(2)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    graph = SimpleNamespace(replay=lambda: "replayed")
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": contextlib.nullcontext,
        "CUDAGraph": lambda: graph,
        "graph": lambda graph, capture_error_mode: contextlib.nullcontext(graph),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    result, replay = step_graph.capture(compute, [weight])
    assert runs == [True] * (step_graph.WARM_UP + 1) and weight.grad is not None
    assert torch.equal(result, torch.ones(2)) and replay() == "replayed"
    runs.clear()
    fails.append("operation not permitted\nwhen stream is capturing")
    with pytest.raises(UsageError, match=r"cannot be captured \(operation not permitted when stream is capturing\)"):
        step_graph.capture(compute, [weight])
