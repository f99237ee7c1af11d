"""Frames of shards are read straight into page-locked memory where a GPU changes them, and only there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_sources import Drawn
from torch import Tensor

from depthray.batch import Sample, to_device
from depthray.config.sections import Augment, Data
from depthray.data.loader import TrainLoader
from depthray.data.packing import pack
from depthray.data.shards.batch_memory import BatchMemory
from depthray.data.sources import open_source
from depthray.errors import DataError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SECTION = Augment(hflip=0.5, crop=0.7)


ON_DEVICE = SECTION.model_copy(update={"device": "device"})


class Masked(Drawn):
    """Frames with masks; of other sizes where `odd` says so."""

    keys = Drawn.keys | {"mask"}

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        return {**sample, "mask": (sample["depth"] > 2).astype(np.uint8)}


class PinnedMemory:
    """What is taken of page-locked memory, and what is copied into it, where there is none in truth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[Tensor] = []
        self.copied: list[Tensor] = []
        empty = torch.empty

        def take(*size: Any, pin_memory: bool = False, **options: Any) -> Tensor:
            tensor = empty(*size, **options)
            self.taken += [tensor] * pin_memory
            return tensor

        def copy(tensor: Tensor) -> Tensor:
            if not any(tensor.untyped_storage().data_ptr() == each.data_ptr() for each in self.taken):
                self.copied.append(tensor)
            return tensor

        monkeypatch.setattr(torch, "empty", take)
        monkeypatch.setattr(Tensor, "pin_memory", copy)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> PinnedMemory:
    return PinnedMemory(monkeypatch)


def load(root: Path, device: torch.device, section: Augment = ON_DEVICE) -> list[Any]:
    """The batches of an epoch, ready for the network, as they are on a device that is the CPU in truth."""
    data = Data(source="shards", root=str(root), size=(12, 16), targets=("depth", "mask"), workers=0)
    source = open_source(data)
    options: dict[str, Any] = {"seed": 3, "batch_size": 4, "device": device}
    loader = TrainLoader(source, range(len(source.frames)), data, section, **options)
    parts = [part for step in loader.epoch(1) for part in step]
    return [to_device(part, CPU, min_depth=1e-3, max_depth=10.0) for part in parts]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(
        a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a)
        for a, b in zip(one, two, strict=True)
    )


def test_batches_are_read_into_pinned_memory_without_a_copy(tmp_path: Path, memory: PinnedMemory) -> None:
    pack(Masked(8), tmp_path, provenance={})
    plain = load(tmp_path, CPU)
    assert not memory.taken and not memory.copied
    assert same(plain, load(tmp_path, GPU))
    assert len(memory.taken) == 2 * 3  # two batches of image, depth and mask
    assert memory.copied and max(tensor.numel() for tensor in memory.copied) < 24 * 32  # numbers, no pixels


def test_frames_of_other_sizes_are_padded_and_copied(tmp_path: Path, memory: PinnedMemory) -> None:
    pack(Masked(8, odd=(1, 2, 5)), tmp_path, provenance={})
    assert same(load(tmp_path, CPU), load(tmp_path, GPU))
    assert {tuple(tensor.shape[1:3]) for tensor in memory.taken} <= {(24, 32), (20, 28)}


def test_a_frame_that_is_cut_off_is_an_error_as_ever(tmp_path: Path, memory: PinnedMemory) -> None:
    pack(Masked(8), tmp_path, provenance={})
    source = open_source(Data(source="shards", root=str(tmp_path)))
    os.truncate(next(tmp_path.glob("*.h5")), 100)
    with pytest.raises(DataError, match="changed since the data set was opened"):
        source.read_stored(0, BatchMemory(4).place(0))  # type: ignore[attr-defined]


def test_what_the_cpu_changes_is_not_read_into_it(tmp_path: Path, memory: PinnedMemory) -> None:
    pack(Masked(8), tmp_path, provenance={})
    section = SECTION.model_copy(update={"device": "cpu"})
    assert same(load(tmp_path, CPU, section), load(tmp_path, GPU, section))
    assert not memory.taken and memory.copied
