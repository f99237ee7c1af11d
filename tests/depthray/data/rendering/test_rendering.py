"""Rendered rooms: depth against the equations of what was hit, ids, the foreground pair, determinism, files."""

import cv2
import numpy as np
import pytest

from depthray.config.sections import Data
from depthray.data import sources
from depthray.data.rendering import poses, raycast, rooms
from depthray.data.rendering import render as synthetic
from depthray.data.rendering.raycast import BOX, CYLINDER, ELLIPSOID, Hits, RenderCamera, Solids
from depthray.data.sources import synthetic as sources_synthetic
from depthray.errors import DataError, ResourceError

SIZE = (48, 64)
SEED = 7


def render(index, *, seed=SEED, size=SIZE, **options):
    return synthetic.render_frame(seed, index, height=size[0], width=size[1], **options)


def points(sample, index):
    """Pixels of a frame back-projected with its intrinsics -> (H,W,3) positions in its room."""
    row, column = np.indices(sample["depth"].shape)
    (fx, _, cx), (_, fy, cy), _ = sample["intrinsics"].astype(np.float64)
    rays = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)], axis=-1)
    view = poses.camera_pose(SEED, *divmod(index, synthetic.POSES))
    return (rays * sample["depth"][..., None]) @ view.rotation.T + view.position


def inside_box(solids, number, positions):
    """(n,3) positions in the world -> (n,3) in the frame of a solid that fills [-1,1]^3."""
    c, s = np.cos(solids.yaw[number]), np.sin(solids.yaw[number])
    x, y, z = (positions - solids.centre[number]).T
    return np.stack([c * x - s * z, y, s * x + c * z], axis=1) / solids.half[number]


def scattered(shape, *, count=18):
    rng = np.random.default_rng(shape)
    centre, half = rng.uniform((-2, -1.5, -6), (2, 1.5, 0.5), (count, 3)), rng.uniform(0.1, 0.9, (count, 3))
    return Solids(np.full(count, shape, np.int32), centre, half, rng.uniform(0, 7, count))


def looking(solids):
    """All that a camera at the origin sees of some solids, and the (H,W,3) rays of its pixels in the world."""
    camera = RenderCamera(np.zeros(3), np.diag([1.0, -1.0, -1.0]), 50.0, (31.3, 23.9), *SIZE)
    hits = Hits(np.full(SIZE, np.inf, np.float32), np.full(SIZE, -1, np.int32))
    raycast.cast_solids(camera, solids, hits=hits, first=0)
    row, column = np.indices(SIZE)
    return hits, np.stack([(column - 31.3) / 50, (23.9 - row) / 50, -np.ones(SIZE)], axis=-1)


def oracle(solids, ray):
    """Depth at which a ray from the origin first enters a solid, searched along it at 1 mm; inf: never."""
    depth = np.arange(raycast.NEAREST, 8, 0.001)
    first = np.inf
    for number in range(len(solids.yaw)):
        x, y, z = inside_box(solids, number, depth[:, None] * ray).T
        power = {BOX: np.maximum(abs(x), abs(z)), ELLIPSOID: np.sqrt(x * x + y * y + z * z), CYLINDER: np.hypot(x, z)}
        within = (power[int(solids.shape[number])] < 1) & (abs(y) < 1)
        if not within[0] and within.any():
            first = min(first, depth[within][0])
    return first


@pytest.mark.parametrize("shape", [BOX, ELLIPSOID, CYLINDER])
def test_depth_is_the_nearest_solid_along_every_ray(shape):
    solids = scattered(shape)
    hits, rays = looking(solids)
    pixels = np.random.default_rng(0).integers(0, SIZE, (70, 2))
    expected = np.array([oracle(solids, rays[row, column]) for row, column in pixels])
    found = hits.depth[tuple(pixels.T)]
    agree = (found == expected) | (np.abs(np.nan_to_num(found, posinf=99) - np.nan_to_num(expected, posinf=99)) < 2e-3)
    assert agree.mean() > 0.99  # the oracle's steps may miss what a ray barely grazes
    assert 0.2 < np.isfinite(hits.depth).mean() < 0.98


@pytest.mark.parametrize("shape", [BOX, ELLIPSOID, CYLINDER])
def test_hits_are_on_the_surface_of_the_solid_they_name(shape):
    solids = scattered(shape)
    hits, rays = looking(solids)
    seen = np.unique(hits.face[hits.face >= 0] // raycast.FACES)
    for number in seen:
        chosen = hits.face // raycast.FACES == number
        x, y, z = inside_box(solids, number, hits.depth[chosen, None] * rays[chosen]).T
        side = {BOX: np.maximum(abs(x), abs(z)), ELLIPSOID: np.sqrt(x * x + y * y + z * z), CYLINDER: np.hypot(x, z)}[
            shape
        ]
        surface = side if shape == ELLIPSOID else np.maximum(side, abs(y))
        assert np.abs(surface - 1).max() * solids.half[number].max() < 5e-4
    assert len(seen) > 5


@pytest.mark.parametrize("index", [0, 5, 10, 23])
def test_floor_ceiling_and_walls_satisfy_their_planes(index):
    sample, room = render(index), rooms.build(SEED, index // synthetic.POSES)
    positions = points(sample, index)
    planes = {1: (0, -room.half[0]), 2: (0, room.half[0]), 3: (1, 0), 4: (1, room.height), 5: (2, -room.half[1])}
    for instance, (axis, offset) in {**planes, 6: (2, room.half[1])}.items():
        chosen = sample["instances"] == instance
        assert np.abs(positions[chosen][:, axis] - offset).max(initial=0) < 1e-4
    assert (sample["instances"] <= rooms.SHELL).mean() > 0.02


@pytest.mark.parametrize("index", range(4))
def test_mask_is_where_instances_change_with_the_foreground(index):
    full, empty = render(index), render(index, foreground=False)
    changed = full["instances"] != empty["instances"]
    assert np.array_equal(full["mask"] == 1, changed)
    assert np.array_equal(full["background"], empty["image"])
    assert np.array_equal(empty["image"], empty["background"]) and not empty["mask"].any()
    assert changed.any() and len(np.unique(full["instances"][changed])) == 1


@pytest.mark.parametrize("index", range(4))
def test_foreground_is_nearer_and_changes_nothing_else(index):
    full, empty = render(index), render(index, foreground=False)
    mask = full["mask"] == 1
    assert (full["depth"][mask] < empty["depth"][mask]).all()
    assert np.array_equal(full["depth"][~mask], empty["depth"][~mask])
    assert np.array_equal(full["semantics"][~mask], empty["semantics"][~mask])
    assert set(np.unique(full["semantics"][mask])) <= {rooms.CLASSES.index(name) for name in ("person", "box", "ball")}


def test_an_instance_is_one_thing_of_one_class_in_all_poses():
    classes: dict[int, int] = {}
    for pose in range(synthetic.POSES):
        sample = render(pose, foreground=False)
        for instance, label in zip(sample["instances"].ravel(), sample["semantics"].ravel(), strict=True):
            assert classes.setdefault(int(instance), int(label)) == label
    assert {1, 2} <= set(classes.values()) <= set(range(1, len(rooms.CLASSES)))
    assert len(classes) > 6


def test_a_frame_does_not_depend_on_what_was_drawn_before():
    first = render(9)
    for cached in (rooms.build, poses.camera_pose, poses.foreground, synthetic._light):
        cached.cache_clear()
    render(30)
    again = render(9)
    assert all(np.array_equal(value, again[key]) for key, value in first.items())


@pytest.mark.parametrize(("seed", "index"), [(SEED + 1, 9), (SEED, 8), (SEED, 13)])
def test_frames_of_other_seeds_poses_and_rooms_differ(seed, index):
    assert np.abs(render(9)["depth"] - render(index, seed=seed)["depth"]).mean() > 0.1


def test_size_changes_the_sampling_and_not_the_scene():
    small, large = render(6), render(6, size=(96, 128))
    scaled = small["intrinsics"][:2] * 2
    scaled[:, 2] += 0.5  # pixel centres are full numbers: c' = (c + 0.5) * 2 - 0.5
    assert np.allclose(large["intrinsics"][:2], scaled, atol=1e-3)
    near = cv2.resize(large["depth"], SIZE[::-1], interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(near - small["depth"])) < 0.005


def test_dtypes_texts_and_range_of_depth():
    samples = [render(index) for index in range(0, 80, 5)]
    depth = np.stack([sample["depth"] for sample in samples])
    assert depth.min() > 0.05 and depth.max() < 10 and (depth > 0.5).mean() > 0.97
    assert 1.5 < np.median(depth) < 4.5 and depth.dtype == np.float32
    assert [sample["scene"] for sample in samples[:3]] == ["room-0000", "room-0001", "room-0002"]
    assert len({sample["id"] for sample in samples}) == len(samples)
    assert {samples[0][key].dtype for key in ("image", "background", "mask")} == {np.dtype(np.uint8)}


def test_images_are_neither_dark_nor_burnt_out():
    means = [render(index)["image"].mean() for index in range(0, 80, 5)]
    assert min(means) > 60 and max(means) < 190
    assert min(render(index)["image"].std() for index in range(0, 80, 5)) > 15


@pytest.mark.parametrize(("space", "drawn"), [(2**20, 3), (1, 5), (0, 6)])
def test_frames_are_kept_while_there_is_space_and_readers_may_change_them(monkeypatch, space, drawn):
    indices, real = [], synthetic.render_frame
    monkeypatch.setattr(sources_synthetic, "CACHE_BYTES", space)

    def render_frame(seed, index, **size):
        indices.append(index)
        return real(seed, index, **size)

    monkeypatch.setattr(synthetic, "render_frame", render_frame)
    rooms_of_three = sources.open_source(Data(source="synthetic", frames=3, size=SIZE))
    before = [rooms_of_three.read(index) for index in range(3)]
    before[0]["depth"][:] = 0
    for index in range(3):
        assert np.array_equal(rooms_of_three.read(index)["depth"], real(0, index, height=48, width=64)["depth"])
    assert len(indices) == drawn


@pytest.mark.parametrize("layout", ["folder", "shards"])
def test_what_is_written_reads_back_equal(tmp_path, layout):
    sources_synthetic.write_rooms(tmp_path, frames=5, size=SIZE, seed=SEED, layout=layout)
    section = Data(source=layout, root=str(tmp_path), inputs=("image", "background", "semantics", "instances", "mask"))
    source = sources.open_source(section)
    assert [frame.scene for frame in source.frames] == ["room-0000"] * 4 + ["room-0001"]
    for index in range(5):
        stored, drawn = source.read(index), render(index)
        assert np.abs(stored["depth"] - drawn["depth"]).max() <= 0.501e-3
        assert all(np.array_equal(stored[key], drawn[key]) for key in ("semantics", "instances", "mask", "id", "scene"))
        assert np.array_equal(stored["intrinsics"], drawn["intrinsics"])
        loss = 10 if layout == "folder" else 1e-9  # JPEG of so small an image halves its colour detail
        assert all(np.abs(stored[key] - drawn[key].astype(float)).mean() < loss for key in ("image", "background"))


def test_a_finished_folder_is_not_overwritten(tmp_path):
    sources_synthetic.write_rooms(tmp_path, frames=1, size=SIZE)
    with pytest.raises(DataError, match=r"index.csv exists; choose another folder"):
        sources_synthetic.write_rooms(tmp_path, frames=1, size=SIZE)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="file: cannot be written"):
        sources_synthetic.write_rooms(tmp_path / "file", frames=1, size=SIZE)
