"""The number format of the forward pass."""

from __future__ import annotations

import pytest
import torch

from depthray.errors import UsageError
from depthray.training import precision, preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.precision import Precision
from depthray.training.state import begin

CPU = torch.device("cpu")


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
