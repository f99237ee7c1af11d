"""Zooms, plain crops and rolls against the pinhole camera that they claim to keep."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.batch import VOID, Sample, collate
from depthray.config.sections import Augment
from depthray.data.augmentation.augment import augment
from depthray.data.augmentation.geometry import KITTI_BENCHMARK, View, zoom_depth, zoom_share
from depthray.data.augmentation.warp import show
from depthray.data.resize import resize, scale_camera
from depthray.errors import DataError

SIZE = (60, 80)
CAMERA = np.array([[70, 0, 39.5], [0, 70, 29.5], [0, 0, 1]], np.float32)
NORMAL = np.array([0.3, -0.2, 1.0]) / np.linalg.norm([0.3, -0.2, 1.0])
ANYWHERE = (0.0, np.inf)


def rays(camera: NDArray[np.float32], size: tuple[int, int] = SIZE) -> NDArray[np.float64]:
    """(3,H,W) the point of each pixel at 1 m along the optical axis."""
    rows, columns = np.indices(size)
    pixels = np.stack([columns, rows, np.ones(size)])
    return np.einsum("ij,jhw->ihw", np.linalg.inv(camera.astype(np.float64)), pixels)


def plane(distance: float, normal: NDArray[np.float64] = NORMAL) -> Sample:
    """A plane n P = distance with a smooth texture that is fixed to it, seen by `CAMERA`."""
    depth = distance / np.einsum("i,ihw->hw", normal, rays(CAMERA))
    across, down, _ = depth * rays(CAMERA)
    image = np.stack([128 + 100 * np.sin(3 * across), 128 + 100 * np.cos(4 * down), 128 + 50 * across], axis=-1)
    return {
        "image": image.round().clip(0, 255).astype(np.uint8),
        "depth": depth.astype(np.float32),
        "sparse": np.where(np.indices(SIZE)[1] % 7 == 0, depth, 0).astype(np.float32),
        "intrinsics": CAMERA.copy(),
        "id": "plane",
        "scene": "s",
    }


def zoomed(sample: Sample, share: float, *, left: float = 0.5, top: float = 0.5) -> Sample:
    view = View.of(sample).crop(share, left=left, top=top)
    return zoom_depth(show(sample, view), zoom_share(view.size, view.frame), measured=ANYWHERE)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_zoom_shows_what_the_same_camera_sees_at_the_depth_it_is_labelled_with(share: float) -> None:
    facing = np.array([0.0, 0.0, 1.0])
    new = resize(zoomed(plane(2.0, facing), share), SIZE)
    nearer = plane(2.0 * share, facing)
    np.testing.assert_allclose(new["depth"], nearer["depth"], rtol=1e-6)
    inner = np.s_[2:-2, 2:-2]  # at the border the crop repeats its last pixels
    difference = np.abs(new["image"].astype(int) - nearer["image"])[inner]
    assert difference.max() <= 3
    wrong = plane(2.0 / share, facing)  # what a division would mean
    assert np.abs(new["image"].astype(int) - wrong["image"])[inner].mean() > 10 * difference.mean()


@pytest.mark.parametrize(("left", "top"), [(0.0, 0.0), (0.9, 0.2)])
def test_a_zoomed_plane_is_the_plane_in_a_smaller_scale(left: float, top: float) -> None:
    new = zoomed(plane(2.0), 0.5, left=left, top=top)
    points = new["depth"] * rays(new["intrinsics"], (30, 40))
    np.testing.assert_allclose(np.einsum("i,ihw->hw", NORMAL, points), 0.5 * 2.0, rtol=1e-5)


def test_the_focal_length_of_complete_frames_projects_the_zoomed_points_onto_their_pixels() -> None:
    size = (30, 40)
    new = zoomed(plane(2.0), 0.5, left=0.9, top=0.2)
    across, down, _ = 2 * new["depth"] * rays(new["intrinsics"], size)  # twice: where the points were
    complete = scale_camera(CAMERA, old=SIZE, new=size)
    rows, columns = np.indices(size)
    column = complete[0, 0] * across / new["depth"] + new["intrinsics"][0, 2]
    row = complete[1, 1] * down / new["depth"] + new["intrinsics"][1, 2]
    np.testing.assert_allclose(column, columns, atol=1e-3)
    np.testing.assert_allclose(row, rows, atol=1e-3)


def test_depth_times_focal_length_is_that_of_the_complete_frame() -> None:
    flat = {**plane(2.0), "depth": np.full(SIZE, 3.0, np.float32)}
    complete = resize(flat, (30, 40))
    for epoch in range(20):
        new = augment(flat, Augment(hflip=0, crop=0.5), seed=0, epoch=epoch, size=(30, 40))
        product = new["depth"] * np.sqrt(new["intrinsics"][0, 0] * new["intrinsics"][1, 1])
        np.testing.assert_allclose(product, 3.0 * complete["intrinsics"][0, 0], rtol=1e-5)


def test_sparse_depth_follows_and_may_stay_with_depth() -> None:
    section = Augment(hflip=0, crop=0.5)
    for epoch in range(5):
        new = augment(plane(2.0), section, seed=0, epoch=epoch)
        old = augment(plane(2.0), section.model_copy(update={"zoom_depth": False}), seed=0, epoch=epoch)
        share = new["depth"][0, 0] / old["depth"][0, 0]
        assert 0.49 < share < 1
        np.testing.assert_allclose(new["depth"], share * old["depth"], rtol=1e-5)
        np.testing.assert_allclose(new["sparse"], share * old["sparse"], rtol=1e-5)
        np.testing.assert_array_equal(new["image"], old["image"])
        np.testing.assert_array_equal(new["intrinsics"], old["intrinsics"])


def test_the_range_of_the_sensor_does_not_move_with_a_zoom() -> None:
    sample = plane(2.0)
    sample["depth"] = np.tile(np.array([0.4, 0.5, 6.0, 9.99, 10.0, 12.0, 0.0, 1.0], np.float32), (60, 10))
    cropped = show(sample, View.of(sample).crop(0.5, left=0, top=0))
    new = zoom_depth(cropped, 0.5, measured=(0.5, 10.0))["depth"][0, :8]
    np.testing.assert_allclose(new, [0, 0, 3, 4.995, 0, 0, 0, 0.5])
    assert cropped["depth"][0, 4] == 10


def test_without_a_crop_nothing_is_scaled() -> None:
    new = augment(plane(2.0), Augment(hflip=0, crop=1.0), seed=0, epoch=0)
    np.testing.assert_array_equal(new["depth"], plane(2.0)["depth"])


def numbered(height: int, width: int) -> Sample:
    """A frame in which each pixel has its own id and depth."""
    ids = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    camera = np.array([[700, 0, width / 2], [0, 700, height / 2], [0, 0, 1]], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = (ids / 1000).astype(np.float32)
    return {"image": image, "depth": depth, "semantics": ids, "intrinsics": camera, "id": "n", "scene": "s"}


@pytest.mark.parametrize("mode", ["plain", "kb"])
def test_plain_crops_are_pixels_of_the_frame_at_its_own_size(mode: str) -> None:
    given, corners = numbered(375, 1242), set()
    for epoch in range(6):
        new = augment(given, Augment(hflip=0, crop_mode=mode), seed=0, epoch=epoch, size=(352, 704))
        top, left = divmod(int(new["semantics"][0, 0]) - 1, 1242)
        window = np.s_[top : top + 352, left : left + 704]
        for key in ("image", "depth", "semantics"):
            np.testing.assert_array_equal(new[key], given[key][window])
        np.testing.assert_allclose(
            new["intrinsics"], given["intrinsics"] - np.array([[0, 0, left], [0, 0, top], [0] * 3])
        )
        corners.add((top, left))
        if mode == "kb":
            assert top == 23 and 13 <= left <= 13 + 1216 - 704
    assert len(corners) > 3


def test_a_plain_crop_is_cut_at_the_size_at_which_frames_are_shown_outside_of_training() -> None:
    given = plane(2.0)
    new = augment(given, Augment(hflip=0, crop_mode="plain"), seed=0, epoch=0, size=(28, 28), frame_size=(42, 56))
    assert new["image"].shape == (28, 28, 3)
    complete = scale_camera(CAMERA, old=SIZE, new=(42, 56))
    np.testing.assert_allclose(np.diag(new["intrinsics"]), np.diag(complete))  # the same focal length
    points = new["depth"] * rays(new["intrinsics"], (28, 28))
    np.testing.assert_allclose(np.einsum("i,ihw->hw", NORMAL, points), 2.0, atol=0.02)  # of pixels nearby


def test_the_crop_of_kittis_benchmark_is_the_middle_of_the_bottom() -> None:
    for height, width in ((375, 1242), (370, 1226), (376, 1241), KITTI_BENCHMARK):
        given = numbered(height, width)
        new = show(given, View.of(given).kitti_benchmark_crop())
        assert new["image"].shape[:2] == KITTI_BENCHMARK
        assert divmod(int(new["semantics"][0, 0]) - 1, width) == (height - 352, int((width - 1216) / 2))


def test_a_frame_smaller_than_its_crop_is_named() -> None:
    with pytest.raises(DataError, match=r"frame 'n' has 300x1242 pixels, fewer than the 352x1216 of .*crop_mode=kb"):
        View.of(numbered(300, 1242)).kitti_benchmark_crop()
    with pytest.raises(DataError, match=r"frame 'n' has 30x40 pixels where 32x40 are cut out; lower data\.size"):
        View.of(numbered(30, 40)).crop_to((32, 40), left=0, top=0)


@pytest.mark.parametrize(
    ("rotate", "digest"),
    [
        (0, "5b12717d1e952c294f9fac41d25aae5f74905923a7000c00694bd586bf623004"),  # of version 0.2.0
        (10, "b3828f21e6321c951771da6d21c078338064834f68f7cb2d4685bb3f0cb068f3"),  # in two samplings until then
    ],
)
def test_recipes_of_before_change_depth_bit_for_bit_as_they_did(rotate: float, digest: str) -> None:
    section = Augment(hflip=0.5, crop=0.7, rotate=rotate, zoom_depth=False)
    total = sha256()
    for epoch in range(8):
        depth = np.random.default_rng(3).uniform(0.5, 9, (24, 40)).astype(np.float32)
        camera = np.array([[30, 0, 18.0], [0, 33, 13.0], [0, 0, 1]], np.float32)
        image = np.zeros((24, 40, 3), np.uint8)
        given: Sample = {"image": image, "depth": depth, "intrinsics": camera, "id": str(epoch), "scene": "s"}
        new = augment(given, section, seed=0, epoch=epoch, size=(20, 30))
        total.update(np.ascontiguousarray(new["depth"]).tobytes())
    assert total.hexdigest() == digest


CHANGES: dict[str, Callable[[View], View]] = {
    "turned": lambda view: view.rotate(7),
    "all": lambda view: view.crop(0.8, left=0.3, top=0.9).resize((30, 44)).rotate(-9).mirror(),
    "larger": lambda view: view.crop(0.5, left=0.1, top=0.2).resize((90, 70)).rotate(4),
    "turned before it is cut": lambda view: view.resize((42, 56)).rotate(5).mirror().crop_to((28, 28), left=1, top=0),
    "cut after a resize": lambda view: view.resize((42, 56)).mirror().crop_to((28, 28), left=0.9, top=0.4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_pixel_shows_the_place_of_the_frame_that_its_camera_sees(change: str) -> None:
    """Against float64 positions: maps hold the nearest value, colours its interpolation."""
    frame = numbered(*SIZE)
    smooth = np.indices(SIZE).sum(axis=0)[..., None] * np.array([1.5, 1, 0.5])
    frame["image"] = (smooth + 20).round().astype(np.uint8)
    view = CHANGES[change](View.of(frame))
    new = show(frame, view)
    rows, columns = np.indices(view.size)
    place = view.place.matrix() @ np.stack([columns, rows, np.ones(view.size)]).reshape(3, -1)
    column, row = place.reshape(2, *view.size)
    inside = (row > -0.49) & (row < SIZE[0] - 0.51) & (column > -0.49) & (column < SIZE[1] - 0.51)
    later = 0.5 + 1e-4  # of two that are as near, the later one
    nearest = np.floor(row + later).clip(0, SIZE[0] - 1) * SIZE[1] + np.floor(column + later).clip(0, SIZE[1] - 1)
    assert (new["semantics"][inside] == nearest[inside] + 1).mean() > 0.998  # but for what rounding decides
    np.testing.assert_array_equal(new["depth"] * 1000 > 0.5, new["semantics"] > 0)
    assert inside.all() or not new["semantics"][~inside].all()
    well = (row > 1) & (row < SIZE[0] - 2) & (column > 1) & (column < SIZE[1] - 2)
    expected = (row + column)[..., None] * np.array([1.5, 1, 0.5]) + 20
    assert np.abs(new["image"] - expected)[well].max() <= 1.2  # the frame's rounding, and the picture's


@pytest.mark.parametrize("size", [(32, 40), (45, 51), (14, 17), (60, 33), (9, 11)])
def test_shrunk_pictures_are_as_sharp_as_those_outside_of_training(size: tuple[int, int]) -> None:
    frame = numbered(*SIZE)
    ours = show(frame, View.of(frame).resize(size))["image"].astype(float)
    validation = resize(frame, size)["image"].astype(float)
    # Of noise, which all that is blurred loses: without the average before interpolation there would be half as much
    # again at a quarter of the size.
    assert 0.8 < ours.std() / validation.std() < 1.25
    smooth = {**frame, "image": plane(2.0)["image"]}
    new, old = show(smooth, View.of(smooth).resize(size))["image"], resize(smooth, size)["image"]
    assert np.abs(new.astype(int) - old).mean() < 2.5


def test_a_mask_is_void_where_a_roll_shows_what_was_not_photographed() -> None:
    given = numbered(48, 64)
    given["mask"] = np.ones((48, 64), np.uint8)
    new = show(given, View.of(given).rotate(15))
    beyond = new["semantics"] == 0
    assert beyond.any() and (new["mask"][beyond] == VOID).all() and (new["mask"][~beyond] == 1).all()
    batch = collate([given, {**new, "id": "rolled"}])
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert batch["mask_valid"][0].all() and (batch["mask_valid"][1, 0].numpy() == ~beyond).all()
    assert "mask_valid" not in collate([given])
