"""The canonical camera of Metric3D: labels and images of any focal length as of one, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from depthray.batch import Batch, Prediction, Sample, to_device
from depthray.config.sections import Augment, Curriculum, Data, DataSet
from depthray.data.augmentation.geometry import View
from depthray.data.augmentation.warp import show
from depthray.data.cameras.canonical_camera import canonical_size, focal_length, label_factor, to_canonical, with_camera
from depthray.data.loader import eval_group
from depthray.data.resize import resize_for_inference
from depthray.data.source import Frame
from depthray.data.train_samples import TrainSamples, collate_loaded
from depthray.errors import DataError
from depthray.models import run
from depthray.runtimes.canonical_depth import CanonicalDepth, in_metres

K = np.array([[120, 0, 47.5], [0, 120, 35.5], [0, 0, 1]], np.float32)
F = 90.0
CPU = torch.device("cpu")


def frame(*, metres: float = 4.0, camera: np.ndarray[Any, Any] | None = K) -> Sample:
    """72x96 pixels of a wall."""
    image = np.random.default_rng(0).integers(0, 255, (72, 96, 3)).astype(np.uint8)
    sample: Sample = {"image": image, "depth": np.full((72, 96), metres, np.float32), "id": "one", "scene": "s"}
    sample["source"] = ""
    return sample if camera is None else {**sample, "intrinsics": camera}


class Wall:
    """A source of one frame."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.frames, self.fingerprint = [Frame("one", "s", "", "")], "f"
        self.keys = frozenset(sample) - {"id", "scene", "source"}

    def read(self, index: int) -> Sample:
        return {**self.sample}

    def faults(self, index: int) -> list[str]:
        return []


class Constant(nn.Module):
    """Predicts canonical metres everywhere, and shows the sparse depth that it got."""

    inputs, stride, outputs = ("image", "sparse"), 1, ("depth", "pyramid", "log_sigma")

    def forward(self, batch: Batch) -> Prediction:
        depth = torch.full_like(batch["image"][:, :1], 3.0)
        self.sparse = batch.get("sparse")
        return {"depth": depth, "pyramid": [depth[..., ::2, ::2]], "log_sigma": depth * 0 - 2}


def data(**keys: Any) -> Data:
    return Data.model_validate({"size": (48, 64), "canonical_focal": F, **keys})


def trained_on(section: Data, sample: Sample, *, on_device: bool = False, epoch: int = 0, **augment: Any) -> Batch:
    curriculum = Curriculum(sizes=((24, 32),), epochs_per_size=1)
    made: Any = Augment(**{"hflip": 0.0, **augment})
    samples = TrainSamples(Wall(sample), section, made, seed=0, curriculum=curriculum, on_device=on_device)
    return to_device(collate_loaded([samples.load((epoch, 0))]), CPU, min_depth=1e-3, max_depth=10)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_focal_length_changes_the_transform_as_the_formula_says(factor: float) -> None:
    """The same wall through a camera of another focal length: as labels, as an image, and as an answer."""
    camera = K.copy()
    camera[[0, 1], [0, 1]] *= factor
    before, after = (label_factor(each, data()) for each in (K, camera))
    assert before == F / 120 and after == pytest.approx(before / factor)
    trained = to_canonical(frame(camera=camera), data(), (1e-3, 10.0))
    assert trained["depth"] == pytest.approx(4 * F / (120 * factor))
    assert canonical_size((72, 96), camera, data()) == (round(72 * F / 120 / factor), round(96 * F / 120 / factor))
    batch = {"image": torch.zeros(2, 3, 8, 8), "intrinsics": torch.from_numpy(np.stack([K, camera])), "id": ["a", "b"]}
    batch["sparse"] = torch.full((2, 1, 8, 8), 2.0)
    network = in_metres(Constant(), data())
    assert isinstance(network, CanonicalDepth)
    answer = run(network, batch)
    for place, focal in enumerate((120, 120 * factor)):
        assert answer["depth"][place].unique().item() == pytest.approx(3 * focal / F)
        assert answer["pyramid"][0][place].unique().item() == pytest.approx(3 * focal / F)
        assert network.network.sparse[place].unique().item() == pytest.approx(2 * F / focal)
    assert answer["log_sigma"].unique().tolist() == [-2]  # of ln depth, whose scale does not matter


@pytest.mark.parametrize("share", [0.7, 1 / 1.4])
@pytest.mark.parametrize("fit", ["exact", "native", "aspect"])
def test_a_crop_that_is_resized_has_the_depth_of_its_frame(share: float, fit: str) -> None:
    """Cropped, a network sees the same pixels nearer; its canonical answer, a constant, is farther in metres."""
    view = View.of(frame()).crop(share, left=0.5, top=0.5)
    crop = show(frame(), view.resize((72, 96)))
    assert focal_length(crop["intrinsics"]) == pytest.approx(120 * math.sqrt(72 * 96 / math.prod(view.size)))
    section = data(fit=fit)
    answers = []
    for each in (frame(), crop):
        ((_, batch),) = eval_group(Wall(each), [0], data=section)
        image = batch["image"].float()
        metres = run(
            in_metres(Constant(), section), {**batch, "image": image, "sparse": torch.zeros_like(image[:, :1])}
        )
        answers.append(metres["depth"].unique().item())
    assert answers[1] / answers[0] == pytest.approx(focal_length(crop["intrinsics"]) / 120, rel=1e-6)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("augment", [{}, {"crop": 0.5}, {"crop": 0.6, "rotate": 20.0, "hflip": 1.0}])
def test_trained_depth_is_that_of_the_canonical_camera(on_device: bool, epoch: int, augment: dict[str, Any]) -> None:
    """Whatever crop, roll and size are drawn: depth is times F over the focal length of what is shown, once."""
    batch = trained_on(data(), frame(), on_device=on_device, epoch=epoch, **augment)
    matrix, depth = batch["intrinsics"][0].numpy(), batch["depth"][batch["valid"]]
    assert depth.unique().tolist() == pytest.approx([4 * F / focal_length(matrix)])
    plain = trained_on(data(canonical_focal=0.0), frame(), on_device=on_device, epoch=epoch, **augment)
    assert torch.equal(plain["image"], batch["image"]) and torch.equal(plain["intrinsics"], batch["intrinsics"])


def test_without_a_transform_crops_and_sizes_keep_the_metres() -> None:
    section = data(canonical="none")
    for epoch, augment in ((0, {}), (1, {"crop": 0.5}), (1, {"crop": 0.6, "rotate": 20.0})):
        batch = trained_on(section, frame(), epoch=epoch, **augment)
        assert batch["depth"][batch["valid"]].unique().tolist() == [4]
    assert isinstance(in_metres(Constant(), section), Constant) and label_factor(K, section) == 1


def test_images_are_trained_on_at_the_canonical_focal_length() -> None:
    section = data(canonical="image", fit="native", size=(24, 32))
    for camera in (K, K * [[1.25], [1.0], [1]]):
        batch = trained_on(section, frame(camera=camera.astype(np.float32)), epoch=1, crop_mode="plain")
        assert batch["image"].shape[2:] == (24, 32) and batch["depth"].unique().tolist() == [4]
        assert batch["intrinsics"][0, [0, 1], [0, 1]].tolist() == pytest.approx([F, F], rel=0.01)
    shown = resize_for_inference(frame(), section)
    assert shown["image"].shape[:2] == (54, 72) and focal_length(shown["intrinsics"]) == pytest.approx(F)
    assert isinstance(in_metres(Constant(), section), Constant)


def test_what_counts_is_within_the_limits_in_metres() -> None:
    """At F / f = 2 the wall of 6 m is at 12, beyond what data.max_depth lets a network have; 4 m are at 8."""
    for metres, counts in ((4.0, True), (6.0, False), (11.0, False)):
        batch = trained_on(data(canonical_focal=160.0, size=(48, 64)), frame(metres=metres), epoch=1)
        assert bool(batch["valid"].all()) == counts and bool(batch["valid"].any()) == counts
    stored: Any = frame() | {"depth": np.full((72, 96), 4000, np.uint16)}
    stored["depth_scale"] = np.array([1000, 1, 0], np.float32)
    batch = trained_on(data(), stored, epoch=1)
    assert batch["valid"].all() and batch["depth"].unique().item() == pytest.approx(4 * F / 80)
    nearer = trained_on(data(canonical_focal=8.0, size=(48, 64)), frame(metres=11.0), epoch=1)
    assert nearer["depth"].max() < 2 and not nearer["valid"].any()  # what is beyond 10 m does not come nearer


def test_sparse_depth_is_drawn_in_metres_and_scaled_with_depth() -> None:
    section = data(inputs=("image", "sparse"), sparse={"pattern": "exact", "samples": 50, "noise": 0.1})
    plain = trained_on(section.model_copy(update={"canonical_focal": 0.0}), frame(), epoch=1)
    batch = trained_on(section, frame(), epoch=1)
    factor = F / focal_length(batch["intrinsics"][0].numpy())
    assert (batch["sparse"] > 0).sum() == 50
    torch.testing.assert_close(batch["sparse"], plain["sparse"] * factor)


def test_frames_without_a_camera_are_named_or_have_that_of_the_data_set() -> None:
    bare = frame(camera=None)
    for read in (lambda: trained_on(data(), bare), lambda: eval_group(Wall(bare), [0], data=data())):
        with pytest.raises(DataError, match=r"frame 'one'.*data.intrinsics=fx,fy,cx,cy"):
            read()
    given = data(intrinsics=(120, 120, 47.5, 35.5))
    assert np.array_equal(with_camera(bare, given)["intrinsics"], K)
    assert with_camera(frame(camera=2 * K), given)["intrinsics"][0, 0] == 240  # its own first
    sets = data(sets=(DataSet(name="a", root="a", intrinsics=(60, 60, 1, 1)), DataSet(name="b", root="b")))
    assert with_camera({**bare, "source": "a"}, sets)["intrinsics"][0, 0] == 60
    with pytest.raises(DataError, match="frame 'one'"):
        with_camera({**bare, "source": "b"}, sets)
    assert "intrinsics" not in with_camera(bare, Data())
    batch: Batch = {"image": torch.zeros(1, 3, 8, 8), "sparse": torch.zeros(1, 1, 8, 8), "id": ["one"]}
    with pytest.raises(DataError, match=r"frame 'one'.*--intrinsics"):
        run(in_metres(Constant(), data()), batch)


def test_a_camera_of_another_image_is_refused() -> None:
    for focal in (4.0, 4000.0):
        with pytest.raises(DataError, match=r"frame 'x'.*camera that of another image"):
            canonical_size((72, 96), K * focal / 120, data(canonical="image", fit="native"), name="x")
