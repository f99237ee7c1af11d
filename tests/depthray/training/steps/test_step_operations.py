"""What a step asks of a device: tensors on the meta device have no values, so that waiting for one is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from depthray.batch import Batch, Sample, collate
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.training import preflight
from depthray.training.state import State, begin
from depthray.training.step import Stepper
from depthray.training.steps.host_copy import HostCopy
from depthray.training.steps.objective import Objective

META = torch.device("meta")
HEIGHT, WIDTH, COUNT = 56, 70, 2
CLONES = ("aten.clone", "aten._foreach_clone", "aten.copy_", "aten._foreach_copy_")
# The others have the same decoders on smaller encoders, or the same network with less of it trained.
NAMES = [name for name in recipes.names() if not name.endswith(("lite", "lora"))]
# Of the large ones a smaller network, in which what a step adds is a larger share.
SMALLER = {
    "bifpn-efficientnet-b0": ["model.encoder=efficientnet_lite0"],
    "dpt-vits": ["model.size=tiny"],
    "fpn-resnet101": ["model.encoder=resnet18"],
    "unet-resnet34": ["model.encoder=resnet18"],
}


class Recorder(TorchDispatchMode):
    """Counts operations, and copies from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.from_host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = f"aten.{func.overloadpacket.__name__}"
        if "view" not in func.tags and not func.is_view:  # views launch nothing
            self.counts[name] += 1
        out = func(*args, **(kwargs or {}))
        if name in ("aten._to_copy", "aten.copy_"):
            source = args[1] if name == "aten.copy_" else args[0]
            target = args[0] if name == "aten.copy_" else out
            self.from_host += source.device.type == "cpu" and target.device.type == "meta"
        return out


@pytest.fixture(autouse=True)
def meta_as_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let torch use its fused and foreach kernels on the meta device too, and count how often numbers are read."""
    optimizer = import_module("torch.optim.optimizer")  # which the package does not list
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(torch.utils._foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["meta"])
    # A kernel of its own on a GPU, which the meta device would write out.
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda q, k, v, **_: q * k * v)
    reads = []

    def read(copy: HostCopy) -> list[float]:
        reads.append(copy)
        return [1.0, 0.0, 0.0, 1.0]

    monkeypatch.setattr(HostCopy, "read", read)
    return lambda: len(reads)


def a_sample(number: int) -> Sample:
    random = np.random.default_rng(number)
    maps = random.integers(1, 9, (4, HEIGHT, WIDTH))
    return {
        "image": random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
        "background": random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
        "depth": maps[0].astype(np.float32),
        "sparse": maps[1].astype(np.float32),
        "semantics": maps[2].astype(np.int32),
        "mask": (maps[3] > 4).astype(np.uint8),
        "intrinsics": np.array([[60, 0, 34.5], [0, 60, 27.5], [0, 0, 1]], np.float32),
        "id": str(number),
        "scene": "room",
        "source": "made",
    }


def a_stepper(recipe: Recipe) -> tuple[Stepper, State]:
    with META:
        state = begin(recipe, META, start=False)
    return Stepper(recipe, state, Objective(recipe, state), steps_per_epoch=9), state


def recorded_step(recipe: Recipe, batches: list[Batch]) -> tuple[Recorder, State]:
    """The second step: in the first the optimiser's state and constants are made."""
    stepper, state = a_stepper(recipe)
    assert stepper.step(batches, 1e-3) == []
    state.position.step += 1
    with Recorder() as recorder:
        results = stepper.step(batches, 1e-3)
    assert [result.loss for result in results] == [1 / recipe.train.batch_size]
    return recorder, state


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, SMALLER.get(name, [])) for name in NAMES),
        ("demo", ["loss.normals=0.1", "loss.smoothness=0.1", "loss.ssi=0.1"]),
        ("demo", ["optim.average=swa", "optim.swa_start=0", "train.accumulate=2"]),
    ],
)
def test_a_step_waits_for_nothing_but_the_numbers_of_the_step_before(
    name: str, words: list[str], meta_as_a_gpu: Callable[[], int]
) -> None:
    recipe = preflight.load(name, ["train.precision=fp32", *words])
    batch = collate([a_sample(number) for number in range(COUNT)])
    parts = [batch] * recipe.train.accumulate
    recorder, state = recorded_step(recipe, parts)
    assert meta_as_a_gpu() == 1
    tensors = sum(isinstance(value, torch.Tensor) for value in batch.values())
    assert recorder.from_host == tensors * len(parts)  # no constant is copied again
    clones = sum(recorder.counts[key] for key in CLONES) - recorder.from_host
    assert clones < 0.05 * recorder.counts.total(), recorder.counts.most_common(20)
    assert all(weight.is_meta for weight in state.model.state_dict().values())


def test_waiting_for_the_device_is_an_error_here(meta_as_a_gpu: Callable[[], int]) -> None:
    recipe = preflight.load("demo", ["train.precision=fp32"])
    batch = collate([a_sample(number) for number in range(COUNT)])
    stepper, state = a_stepper(recipe)
    state.optimiser.register_step_pre_hook(lambda optimiser, *_: print(float(optimiser.found_inf)))
    with pytest.raises(RuntimeError, match="meta"):
        stepper.step([batch], 1e-3)
