"""Changes made on a device, here the CPU as one: the CPU's geometry pixel for pixel, its colours in distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from made_sources import Drawn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from depthray.batch import Batch, Sample, to_device
from depthray.config.sections import Augment, Data, Sparse
from depthray.data.loader import TrainLoader
from depthray.data.train_samples import changes_on_device
from depthray.errors import UsageError

CPU = torch.device("cpu")
KEYS = ("image", "background", "depth", "semantics", "mask")
GEOMETRY: dict[str, dict[str, Any]] = {
    "flip": {"hflip": 0.5},
    "crop": {"hflip": 0.5, "crop": 0.6},
    "turn": {"hflip": 0.5, "rotate": 20},
    "all": {"hflip": 0.5, "rotate": 9, "crop": 0.7},
    "plain": {"hflip": 0.5, "crop_mode": "plain"},
    "turned plain": {"hflip": 0.5, "rotate": 9, "crop_mode": "plain"},
    "upside down": {"hflip": 0.5, "vflip": 0.7, "crop": 0.6},
    "upside down plain": {"hflip": 0.5, "vflip": 0.7, "crop_mode": "plain"},
}
COLOUR: dict[str, Any] = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1, "hflip": 0}


class Figures(Drawn):
    """Frames with everything, 96 x 128 and in part 80 x 112: noise, so that a place that is not right shows."""

    keys = frozenset(KEYS)

    def read(self, index: int) -> Sample:
        small = super().read(index)
        size = tuple(4 * side for side in small["depth"].shape)
        random = np.random.default_rng(index)
        sample = {
            "image": random.integers(0, 256, (*size, 3), dtype=np.uint8),
            "background": random.integers(0, 256, (*size, 3), dtype=np.uint8),
            "depth": random.uniform(0.5, 12, size).astype(np.float32),
            "semantics": random.integers(0, 40, size, dtype=np.int32),
            "mask": random.integers(0, 2, size, dtype=np.uint8),
            "intrinsics": np.array([[90, 0, 60.5], [0, 95, 47], [0, 0, 1]], np.float32),
        }
        return {**small, **sample}  # type: ignore[typeddict-item]


def batches(data: Data, section: dict[str, Any], *, odd: tuple[int, ...] = (), workers: int = 0) -> list[list[Batch]]:
    """The same batches with changes made by the CPU's functions, and by those of a device."""
    source, made = Figures(8, odd=odd), []
    for where, count in (("cpu", 0), ("device", workers)):
        augment = Augment(**section, device=where)
        data = data.model_copy(update={"workers": count})
        loader = TrainLoader(source, range(8), data, augment, seed=5, batch_size=4)
        parts = [part for step in loader.epoch(3) for part in step]
        made.append([to_device(part, CPU, min_depth=1e-3, max_depth=10.0) for part in parts])
    return made


def unlike(one: Tensor, two: Tensor) -> float:
    return (one != two).double().mean().item()


@pytest.mark.parametrize("size", [(48, 64), (90, 130), (33, 45), (24, 20), (96, 128)])
@pytest.mark.parametrize("change", GEOMETRY)
def test_geometry_is_that_of_the_cpu_pixel_for_pixel(change: str, size: tuple[int, int]) -> None:
    odd = () if size == (24, 20) else (1, 5)  # averaged over boxes, the border of a smaller frame is another one
    mode = "native" if change in ("plain", "upside down plain") else "aspect" if "plain" in change else "exact"
    if mode == "native" and max(size) > 112:
        size = (80, 112)
    if mode == "aspect":
        size = (min(size), min(size))  # within frames whose shorter side is that
    for one, two in zip(*batches(Data(size=size, fit=mode), GEOMETRY[change], odd=odd), strict=True):
        assert one["id"] == two["id"] and set(two) - {"mask_valid"} == set(one) - {"mask_valid"}
        for key in ("image", "background"):
            assert (one[key] - two[key]).abs().max() * 255 < 2
        for key in ("depth", "valid", "semantics", "mask"):
            assert one[key].dtype == two[key].dtype and one[key].shape == two[key].shape
            turned = "rotate" in GEOMETRY[change]
            assert unlike(one[key], two[key]) <= (1e-3 if turned else 0)
        assert torch.equal(one["intrinsics"], two["intrinsics"])
        if "mask_valid" in one:
            assert unlike(one["mask_valid"], two["mask_valid"]) <= 1e-3


@pytest.mark.parametrize(
    "section",
    [
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
        {"hue": 0.2},
        COLOUR,
        {"brightness_contrast": 0.7},
        {"hue_saturation_value": 0.7},
        {"blur": 0.7},
        {"gamma": 0.3},
        {"bts_colour": 0.7},
        {"motion_blur": 0.7},
        {"jpeg": 0.7},
    ],
    ids=lambda section: "+".join(section),
)
def test_colours_are_drawn_and_made_as_on_the_cpu(section: dict[str, Any]) -> None:
    plain = {**GEOMETRY["flip"], "hflip": 0}
    (original, _) = batches(Data(size=(48, 64)), plain)
    for one, two, given in zip(*batches(Data(size=(48, 64)), {"hflip": 0, **section}), original, strict=True):
        for key in ("image", "background"):
            difference = (one[key] - two[key]) * 255
            assert difference.mean().abs() < 0.6 and difference.abs().mean() < 2
            changed = (one[key] != given[key]).flatten(1).any(dim=1)
            assert changed.any() or section.get("blur") or section.get("motion_blur")
            assert (difference.abs().flatten(1).mean(dim=1)[~changed] < 0.6).all()


def test_noise_has_the_deviation_of_the_cpu_and_is_a_function_of_the_sample() -> None:
    section = {"hflip": 0, "noise": 1.0}
    (original, _), (cpu, device) = (batches(Data(size=(96, 128)), each) for each in ({"hflip": 0}, section))
    for given, one, two in zip(original, cpu, device, strict=True):
        inner = (given["image"] > 0.2) & (given["image"] < 0.8)
        for n in range(4):
            deviations = [(each["image"][n] - given["image"][n])[inner[n]].std().item() for each in (one, two)]
            assert deviations[0] == pytest.approx(deviations[1], rel=0.05)
        same = (two["image"] - given["image"]) - (two["background"] - given["background"])
        assert same[inner & (given["background"] > 0.2) & (given["background"] < 0.8)].abs().max() < 1e-5
    alone = TrainLoader(
        Figures(8), range(8), Data(size=(96, 128)), Augment(**section, device="device"), seed=5, batch_size=1
    )
    singles = [to_device(part, CPU, min_depth=1e-3, max_depth=10.0) for step in alone.epoch(3) for part in step]
    by_name = {part["id"][0]: part["image"][0] for part in singles}
    assert all(
        torch.equal(image, by_name[name])
        for part in device
        for name, image in zip(part["id"], part["image"], strict=True)
    )


class Operations(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_making_the_changes_reads_nothing_back_and_copies_no_constants() -> None:
    some = ("blur", "brightness_contrast", "hue_saturation_value", "bts_colour", "motion_blur", "jpeg", "cutdepth")
    section = {**GEOMETRY["all"], **COLOUR, **dict.fromkeys(some, 0.5), "vflip": 0.5, "gamma": 0.2}
    made = Augment(**section, device="device")
    loader = TrainLoader(Figures(8), range(8), Data(size=(24, 32)), made, seed=5, batch_size=8)
    [[batch]] = loader.epoch(3)
    changes = batch.pop("changes")
    with Operations() as operations:
        changes.make(batch)
    waits = ("local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "unique", "index.Tensor")
    assert "aten.grid_sampler_2d.default" in operations.names
    assert not [name for name in operations.names if any(each in name for each in waits)]


@pytest.mark.parametrize("more", [{}, {"data": {"inputs": ("image", "sparse")}}, {"crop": 0.6}], ids=repr)
def test_pasted_depth_is_that_of_the_cpu(more: dict[str, Any]) -> None:
    data = Data(size=(48, 64), **more.get("data", {}))
    section = {"hflip": 0.5, "crop": more.get("crop", 1.0)}
    plain, pasted = (batches(data, {**section, "cutdepth": chance}) for chance in (0.0, 0.7))
    changed = 0
    for given, one, two in zip(plain[0], *pasted, strict=True):
        where = (one["image"] != given["image"]).any(dim=1, keepdim=True)
        changed += int(where.flatten(1).any(dim=1).sum())
        assert torch.equal(one["depth"], two["depth"])
        inside = where.expand_as(one["image"])
        assert (one["image"] - two["image"])[inside].abs().max() * 255 <= 1
        assert (one["image"] - two["image"]).abs().max() * 255 < 2
        shown = (10 * one["image"][:, :1])[where & one["valid"]] - one["depth"][where & one["valid"]]
        assert shown.abs().max() <= 10 / 255, "white is max_depth, 10 metres"
    assert 2 <= changed < 8


def test_sparse_depth_is_that_of_the_cpu() -> None:
    data = Data(size=(24, 32), inputs=("image", "sparse"), sparse=Sparse(samples=30))
    for one, two in zip(*batches(data, GEOMETRY["all"]), strict=True):
        assert torch.equal(one["sparse"], two["sparse"]) and torch.equal(one["depth"], two["depth"])
        assert (one["image"] - two["image"]).abs().max() * 255 < 2


def test_loader_processes_draw_the_same() -> None:
    section = {**GEOMETRY["all"], **COLOUR, "noise": 0.5, "blur": 0.5}
    here, there = (batches(Data(size=(24, 32)), section, odd=(1, 5), workers=count)[1] for count in (0, 2))
    for one, two in zip(here, there, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in KEYS)


@pytest.mark.parametrize(
    ("where", "device", "made"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("cpu", "cuda", False), ("device", "cpu", True)],
)
def test_a_gpu_makes_the_changes_unless_the_recipe_says_otherwise(where: str, device: str, made: bool) -> None:
    assert changes_on_device(Augment(device=where), Data(), torch.device(device)) is made


def test_corners_are_looked_for_in_images_that_the_cpu_has_changed() -> None:
    data = Data(inputs=("image", "sparse"), sparse=Sparse(pattern="features"))
    assert not changes_on_device(Augment(), data, torch.device("cuda"))
    with pytest.raises(
        UsageError, match=r"augment\.device=device: data\.sparse\.pattern=features .* set augment\.device=cpu"
    ):
        changes_on_device(Augment(device="device"), data, torch.device("cuda"))
