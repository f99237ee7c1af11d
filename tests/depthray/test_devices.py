"""Which GPU a process takes, and that one which asked for none touches none: with pretended GPUs, as CI has none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
from made_sources import Drawn

from depthray import distributed
from depthray.cli import train
from depthray.config.sections import Augment, Data
from depthray.data import loader
from depthray.errors import ResourceError, UsageError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as PyTorch is asked about them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize(("local_rank", "device"), [("0", "cuda:0"), ("1", "cuda:1")])
@pytest.mark.usefixtures("two_gpus")
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, local_rank: str, device: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert distributed.start() == torch.device(device)


@pytest.mark.usefixtures("two_gpus")
def test_a_process_without_a_gpu_of_its_own_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ResourceError, match=r"process 3 .* finds 2 GPUs here; .* --nproc-per-node 2"):
        distributed.start()
    assert distributed.start(gpu=False) == torch.device("cpu")  # who takes none is not counted


@pytest.mark.parametrize(("gpu", "backend"), [(True, "nccl"), (False, "gloo")])
@pytest.mark.usefixtures("two_gpus")
def test_the_group_knows_its_device_and_how_long_to_wait(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, backend: str
) -> None:
    joined: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda name, **given: joined.append((name, given)))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    distributed.start(gpu=gpu, timeout_minutes=2)
    expected = torch.device("cuda", 1) if gpu else None
    assert joined == [(backend, {"timeout": timedelta(minutes=2), "device_id": expected})]


@pytest.mark.parametrize(
    ("flags", "patience", "minutes"),
    [([], "600", 30.0), (["--timeout", "12"], "60", 12.0), (["--timeout", "12"], "3600", 65.0)],
)
def test_workers_wait_longer_for_each_other_than_for_a_disk(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], patience: str, minutes: float
) -> None:
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", patience)
    assert train.timeout_minutes(train.build_parser().parse_args(["demo", *flags])) == minutes


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "1e9"])
def test_a_timeout_is_a_number_of_minutes(minutes: str) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        train.load_recipe(train.build_parser().parse_args(["demo", f"--timeout={minutes}"]))


@pytest.mark.parametrize("computes_there", [False, True])
@pytest.mark.usefixtures("two_gpus")
def test_memory_is_pinned_only_where_the_process_computes_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, computes_there: bool
) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    device = torch.device("cuda" if computes_there else "cpu")
    data = Data(size=(12, 16), workers=0)
    options: dict[str, Any] = {"seed": 0, "batch_size": 4, "device": device}
    [[_]] = loader.TrainLoader(Drawn(4), range(4), data, Augment(), **options).epoch(0)
    assert bool(pinned) == computes_there
