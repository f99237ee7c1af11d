"""data.fit: what a network is shown outside of training has the aspect, or the size, of the image; and plain crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_sources import Drawn
from scoring import Net, Rooms

from depthray.batch import Sample, to_device
from depthray.config.sections import Augment, Data, Sparse
from depthray.data.loader import TrainLoader, eval_batches
from depthray.evaluation.evaluate import sheet_rows
from depthray.evaluation.protocols import PLAIN

CPU = torch.device("cpu")


def test_eval_batches_may_keep_the_aspect() -> None:
    data = Data(size=(14, 28), fit="aspect")
    batches = list(eval_batches(Drawn(4, odd=(2,)), range(4), data, batch_size=4))
    assert [indices for indices, _ in batches] == [[0, 1, 3], [2]]
    first, second = (batch for _, batch in batches)
    assert first["image"].shape == (3, 3, 14, 14) and first["image"].dtype == torch.float32  # 14 x 18.7
    assert second["image"].shape == (1, 3, 14, 14)
    assert first["depth"].shape == (3, 1, 24, 32)  # the truth as it is
    loader = TrainLoader(Drawn(4), range(4), data, Augment(), seed=0, batch_size=4)
    training = next(loader.epoch(0))[0]["image"]
    assert training.shape[-2:] == data.size and training.dtype == torch.uint8


def test_frames_without_depth_but_of_different_network_size_come_apart() -> None:
    class Bare(Drawn):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            del sample["depth"]
            sample["image"] = sample["image"].repeat(1 + 2 * (index == 1), axis=1)
            return sample

    found = list(eval_batches(Bare(3), range(3), Data(size=(14, 28), fit="aspect"), batch_size=3))
    assert [(indices, tuple(batch["image"].shape[-2:])) for indices, batch in found] == [
        ([0, 2], (14, 14)),
        ([1], (14, 56)),
    ]


def test_moving_a_batch_leaves_it_as_it_was() -> None:
    [(_, batch)] = eval_batches(Drawn(2), range(2), Data(size=(14, 28), fit="aspect"), batch_size=2)
    before = batch["image"].clone()
    moved = to_device(batch, torch.device("cpu"), min_depth=0, max_depth=10)
    assert torch.equal(batch["image"], before)
    assert torch.equal(moved["image"], before / 255)


def test_images_of_bicubic_colour_do_not_wrap_around() -> None:
    step = np.zeros((24, 32, 3), np.uint8)
    step[:, 16:] = 255

    class Step(Rooms):
        def read(self, index: int) -> Sample:
            return {**super().read(0), "image": step}

    batches = eval_batches(Step(), [0], Data(size=(42, 56), fit="aspect"), batch_size=1)
    [drawn] = sheet_rows(Net(), batches, protocol=PLAIN, device=CPU)
    assert (np.diff(drawn.image[:, :, 0].astype(int), axis=1) >= 0).all()


def test_sparse_samples_at_corners_are_found_in_bicubic_colour() -> None:
    sparse = Sparse(pattern="features", samples=9)
    data = Data(size=(42, 56), fit="aspect", inputs=("image", "sparse"), sparse=sparse)
    [(_, batch)] = eval_batches(Rooms(), [0], data, batch_size=1)
    assert batch["sparse"].shape[-2:] == (42, 56)
    assert 0 < int((batch["sparse"] > 0).sum()) <= 9


@pytest.mark.parametrize(("fit", "frame"), [("native", (24, 32)), ("aspect", (14, 14))])
def test_plain_crops_are_of_the_frames_that_evaluation_shows(fit: str, frame: tuple[int, int]) -> None:
    section = Augment(hflip=0, crop_mode="plain")
    data = Data(size=(14, 14), fit=fit, workers=0)
    loader = TrainLoader(Drawn(4), range(4), data, section, seed=0, batch_size=4)
    training = next(loader.epoch(0))[0]
    assert training["image"].shape == (4, 3, 14, 14)
    [(_, batch)] = eval_batches(Drawn(4), range(4), data, batch_size=4)
    assert batch["image"].shape == (4, 3, *frame) and batch["depth"].shape == (4, 1, 24, 32)
    if fit == "native":
        for name, image in zip(training["id"], training["image"], strict=True):
            whole = batch["image"][batch["id"].index(name)]
            windows = whole.unfold(1, 14, 1).unfold(2, 14, 1)  # (3,11,19,14,14)
            assert (windows == image[:, None, None]).all(dim=-1).all(dim=-1).all(dim=0).sum() == 1


def test_frames_of_their_own_size_come_apart_where_sizes_differ() -> None:
    data = Data(size=(14, 14), fit="native")
    sizes = [batch["image"].shape[-2:] for _, batch in eval_batches(Drawn(3, odd=(1,)), range(3), data, batch_size=3)]
    assert sizes == [(24, 32), (20, 28)]


@pytest.mark.parametrize("workers", [1, 2])
def test_plain_and_zoomed_crops_do_not_depend_on_loader_processes(workers: int) -> None:
    for mode, crop in (("plain", 1.0), ("resize", 0.6)):
        section = Augment(crop=crop, crop_mode=mode, brightness=0.2)
        first, second = (
            TrainLoader(
                *(Drawn(8), range(8), Data(size=(14, 16), fit="native", workers=count), section), seed=1, batch_size=4
            )
            for count in (0, workers)
        )
        for one, two in zip(first.epoch(2), second.epoch(2), strict=True):
            assert torch.equal(one[0]["image"], two[0]["image"]) and torch.equal(one[0]["depth"], two[0]["depth"])
