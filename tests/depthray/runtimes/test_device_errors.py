"""Too little memory is one error that names what to lower, and nothing tries again what would fail again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster import workers
from depthray import distributed
from depthray.config import own_code
from depthray.errors import DepthrayError, ResourceError, UsageError
from depthray.runs import progress
from depthray.runs.run import prepare, record
from depthray.runtimes import device_errors
from depthray.training import preflight
from depthray.training.step import Stepper

CPU = torch.device("cpu")
SMALL = ["data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=1", "train.precision=fp32"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError("Unable to allocate 9 TiB"),
    ],
)
def test_each_kind_of_too_little_memory_is_recognised(error: Exception) -> None:
    with pytest.raises(ResourceError) as caught, device_errors.explained("lower it", CPU):
        raise error
    assert str(caught.value) == "out of memory on cpu: lower it"


def test_the_allocator_of_the_cpu_is_recognised_and_other_errors_are_not() -> None:
    with pytest.raises(ResourceError, match="out of memory on cpu"), device_errors.explained("", CPU):
        torch.empty(2**55)
    with pytest.raises(RuntimeError, match="shape"), device_errors.explained("", CPU):
        torch.zeros(2).view(3)


@pytest.mark.parametrize("main", [True, False])
def test_a_step_that_needs_too_much_memory_ends_the_run_naming_what_to_lower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, main: bool
) -> None:
    recipe = preflight.load("demo", SMALL)
    prepare(tmp_path, recipe, resume=False)

    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Stepper, "step", too_large)
    monkeypatch.setattr(distributed, "is_main", lambda: main)
    with pytest.raises(ResourceError, match=r"raise train\.accumulate=1,.* or lower train\.batch_size=8") as caught:
        list(record(recipe, tmp_path, CPU))
    assert caught.value.exit_code == 5
    if main:
        state = progress.last_state(progress.read(tmp_path))
        assert state is not None and state.state == "failed" and "train.accumulate" in state.reason


def test_a_worker_that_runs_out_of_memory_says_so_to_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray does not start the group again then: see MistakePolicy in tests/cluster/test_elastic.py."""
    published: list[DepthrayError] = []

    def train(config: dict[str, object], run: str) -> None:
        with device_errors.explained("lower train.batch_size=64", CPU):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(workers, "_work", train)
    monkeypatch.setattr(workers, "check_shared", lambda run, attempt: None)
    monkeypatch.setattr(workers, "report_error", lambda attempt, error: published.append(error))
    with pytest.raises(ResourceError):
        workers.work({"attempt": "first", "run": str(tmp_path), "code": own_code.share(), "environment": {}})
    assert "train.batch_size=64" in str(published[0])


def test_an_operation_without_a_deterministic_form_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = preflight.load("demo", SMALL)
    prepare(tmp_path, recipe, resume=False)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(
            "upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )

    monkeypatch.setattr(Stepper, "step", refuse)
    with pytest.raises(UsageError, match=r"train\.deterministic=true: .* form of upsample_bicubic2d_backward_out_cuda"):
        list(record(recipe, tmp_path, CPU))
