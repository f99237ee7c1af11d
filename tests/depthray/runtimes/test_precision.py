"""The number format of the forward pass, and the settings of PyTorch that go with it, on pretended GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from depthray import distributed
from depthray.checkpoints import manifest, save
from depthray.errors import UsageError
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import PLAIN
from depthray.runtimes import precision
from depthray.runtimes.precision import Precision
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import begin

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PASCAL, VOLTA, TURING, AMPERE, HOPPER = (6, 1), (7, 0), (7, 5), (8, 0), (9, 0)


@pytest.fixture
def settings_kept() -> Iterator[None]:
    """PyTorch's settings of the process are put back: other tests share it."""
    yield
    Precision(CPU, torch.float32).apply()
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """Pretend that the GPU has a compute capability."""

    def pretend(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Test GPU")

    return pretend


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        ([AMPERE, HOPPER], torch.bfloat16),
        ([VOLTA, TURING], torch.float16),
        ([AMPERE, TURING], torch.float16),  # of rank 0 alone it was bf16, which Turing emulates
        ([HOPPER, PASCAL], torch.float32),
    ],
)
def test_gpus_of_several_kinds_compute_in_a_format_that_is_fast_on_each(
    monkeypatch: pytest.MonkeyPatch,
    gpu: Callable[[tuple[int, int]], None],
    kinds: list[tuple[int, int]],
    dtype: torch.dtype,
) -> None:
    def of(kind: tuple[int, int]) -> torch.dtype:
        gpu(kind)
        return precision.fastest(GPU)

    each = [of(kind) for kind in kinds]
    monkeypatch.setattr(distributed, "gather", lambda mine: each)
    assert Precision.of("auto", GPU).dtype == dtype


@pytest.mark.parametrize(
    ("name", "kind", "warning"),
    [
        ("bf16", TURING, "no bf16: train.precision=fp16"),
        ("bf16", PASCAL, "no bf16: train.precision=fp32"),
        ("tf32", VOLTA, "no tf32: train.precision=fp16"),
        ("bf16", AMPERE, ""),
        ("fp16", VOLTA, ""),
        ("fp32", PASCAL, ""),
    ],
)
def test_a_format_that_the_gpu_emulates_is_a_warning(
    gpu: Callable[[tuple[int, int]], None], name: str, kind: tuple[int, int], warning: str
) -> None:
    gpu(kind)
    found = Precision.of(name, GPU).warning
    assert warning in found and bool(found) == bool(warning)


@pytest.mark.usefixtures("settings_kept")
@pytest.mark.parametrize(
    ("name", "deterministic", "benchmark"), [("fp32", False, True), ("tf32", False, True), ("fp32", True, False)]
)
def test_tf32_and_cudnn_are_as_the_recipe_has_them(
    monkeypatch: pytest.MonkeyPatch, name: str, deterministic: bool, benchmark: bool
) -> None:
    monkeypatch.delenv(precision.WORKSPACE, raising=False)
    monkeypatch.setenv(precision.WORKSPACE, "") if not deterministic else None
    Precision.of(name, GPU).apply(deterministic=deterministic)
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
    assert torch.backends.cudnn.benchmark == benchmark
    assert torch.backends.cudnn.deterministic == torch.are_deterministic_algorithms_enabled() == deterministic
    assert os.environ[precision.WORKSPACE] == (":4096:8" if deterministic else "")


@pytest.mark.usefixtures("settings_kept")
def test_validation_in_float32_is_float32_amid_training_in_tf32() -> None:
    Precision.of("tf32", GPU).apply()
    with Precision.of("fp32", GPU).active():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("train", "evaluation", "device", "dtype"),
    [
        ("auto", "auto", GPU, torch.bfloat16),
        ("fp16", "auto", GPU, torch.float16),
        ("bf16", "fp32", GPU, torch.float32),
        ("fp32", "bf16", CPU, torch.bfloat16),
        ("bf16", "auto", CPU, torch.float32),
    ],
)
def test_validation_follows_training_on_a_gpu_unless_told_otherwise(
    gpu: Callable[[tuple[int, int]], None], train: str, evaluation: str, device: torch.device, dtype: torch.dtype
) -> None:
    gpu(HOPPER)
    made = preflight.load("demo", [f"train.precision={train}", f"eval.precision={evaluation}"])
    assert Precision.of_evaluation(made, device).dtype == dtype


def test_what_decides_the_last_digits_is_recorded(gpu: Callable[[tuple[int, int]], None]) -> None:
    gpu(HOPPER)
    record = Precision.of("auto", GPU).describe(deterministic=True)
    assert (record["device"], record["precision"], record["deterministic"]) == ("Test GPU", "bf16", "true")
    assert Precision.of("tf32", CPU).describe() == {"device": "cpu", "precision": "tf32", "deterministic": "false"}


@pytest.mark.usefixtures("settings_kept")
def test_a_checkpoint_says_in_which_arithmetic_it_was_made(tmp_path: Path) -> None:
    made = preflight.load("demo", ["data.size=32,64", "train.precision=bf16", "train.deterministic=true"])
    path = save.write(tmp_path, begin(made, CPU).contents({}, fingerprint=""))
    versions = manifest.verify(path).versions
    assert (versions["device"], versions["precision"], versions["deterministic"]) == ("cpu", "bf16", "true")


def test_evaluation_in_bf16_is_another_number_and_close() -> None:
    class Seen(nn.Module):
        inputs, stride = ("image",), 1

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)
            nn.init.constant_(self.layer.weight, 0.7)
            self.formats: list[torch.dtype] = []

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            depth = self.layer(batch["image"])
            self.formats.append(depth.dtype)
            return {"depth": depth.float() + 1}

    image = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    batch: Any = {"image": image, "depth": torch.full((1, 1, 8, 8), 2.0), "id": ["a"], "scene": ["s"], "source": ["x"]}
    network = Seen()
    for chosen in (None, Precision(CPU, torch.bfloat16)):
        evaluate(network, [([0], dict(batch))], protocol=PLAIN, device=CPU, precision=chosen)  # type: ignore[list-item]
    assert network.formats == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_narrow_only_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: has)
    assert Precision.of("auto", CPU).dtype == dtype


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.precision=fp16"):
        Precision.of("fp16", CPU)


def test_weights_stay_float32_in_bfloat16_and_training_lowers_the_loss() -> None:
    overrides = ["data.size=32,64", "data.frames=40", "train.batch_size=8", "train.epochs=4", "train.precision=bf16"]
    made = preflight.load("demo", overrides)
    state = begin(made, CPU)
    losses = [e.metrics["train_loss"] for e in fit(made, state, Frames.open(made)) if isinstance(e, Epoch)]
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in state.model.parameters()} == {torch.float32}
