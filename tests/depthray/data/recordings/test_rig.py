"""Depth registered to colour, lens distortion removed, and cameras that do not fit their images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from listed import MILLISECOND, ListedRecording, camera, image, place

from depthray.config.sections import Data
from depthray.data.recordings import rig
from depthray.data.recordings.messages import TransformsMessage
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.rig import IDENTITY, Lens
from depthray.errors import DataError
from depthray.imaging.distortion import DistortedCamera, camera_of

SIZE = (24, 32)
TURN = (0.5, -0.5, 0.5, -0.5)  # from a camera's frame (x right, z ahead) to a body's (x ahead, z up): its inverse


def lens(focal, size=SIZE, **changes):
    matrix = (focal, 0.0, (size[1] - 1) / 2, 0.0, focal, (size[0] - 1) / 2, 0.0, 0.0, 1.0)
    return Lens(size[0], size[1], matrix)._replace(**changes)


def pose(x=0.0, y=0.0, z=0.0):
    return rig.given_pose((x, y, z, 0, 0, 0, 1))


@pytest.mark.parametrize("focal", [20.0, 40.0, 57.0])
def test_registration_without_movement_is_a_change_of_camera(focal):
    """A plane, and a nearer square in it, seen by cameras of other focal lengths: no holes, no smeared edges."""
    depth = np.full(SIZE, 4, np.float32)
    depth[10:14, 14:18] = 2
    seen = rig.register(depth, lens(20.0), lens(focal), IDENTITY, size=SIZE)
    side = round(4 * focal / 20)
    assert set(np.unique(seen)) == {2, 4}
    assert (seen == 2).sum() == pytest.approx((4 * focal / 20) ** 2, abs=2 * side)


def test_registration_moves_by_disparity_and_keeps_the_nearest():
    depth = np.full(SIZE, 4, np.float32)
    depth[8:16, 8:16] = 2
    # 0.2 m to the right of colour, at a focal length of 20 px: 1 px at 4 m, 2 px at 2 m, to the right.
    seen = rig.register(depth, lens(20.0), lens(20.0), pose(x=0.2), size=SIZE)
    expected = np.zeros(SIZE, np.float32)
    expected[:, 1:] = 4
    expected[8:16, 9:10] = 0  # what was behind the square, and is seen by colour alone
    expected[8:16, 10:18] = 2
    assert np.array_equal(seen, expected)


def test_registration_ahead_and_behind():
    seen = rig.register(np.full(SIZE, 3, np.float32), lens(20.0), lens(20.0), pose(z=-1), size=SIZE)
    assert set(np.unique(seen)) == {0, 2}  # nearer, of fewer measurements a pixel
    assert not rig.register(np.full(SIZE, 3, np.float32), lens(20.0), lens(20.0), pose(z=-3), size=SIZE).any()


def test_unmeasured_depth_stays_unmeasured():
    assert not rig.register(np.zeros(SIZE, np.float32), lens(20.0), lens(40.0), pose(x=0.1), size=SIZE).any()


DISTORTED = {
    "plumb_bob": (-0.2, 0.05, 0.01, -0.01, 0.0),
    "rational_polynomial": (0.4, -0.1, 0.005, -0.005, 0.02, 0.5, -0.1, 0.05),
    "equidistant": (0.1, -0.05, 0.01, 0.0),
}


@pytest.mark.parametrize("model", DISTORTED)
def test_depth_of_a_distorted_camera_is_registered_by_its_rays(model):
    """A ramp of depth over the image: each pixel's ray ends where the undistorted camera sees it."""
    size = (48, 64)
    bent = lens(40.0, size, model=model, distortion=DISTORTED[model])
    ramp = np.tile(np.linspace(1, 5, size[1], dtype=np.float32), (size[0], 1))
    seen = rig.register(ramp, bent, lens(40.0, size), IDENTITY, size=size)
    across, down = rig.undistortion(bent)
    expected = cv2.remap(ramp, across, down, cv2.INTER_LINEAR)
    measured = (seen > 0) & (expected > 0)
    assert measured.mean() > 0.6
    assert np.abs(seen - expected)[measured].max() < 2.2 * 4 / size[1]  # a pixel and a half


@pytest.mark.parametrize("model", DISTORTED)
def test_distortion_of_colour_and_aligned_depth_is_removed_alike(model):
    size = (48, 64)
    bent = lens(40.0, size, model=model, distortion=DISTORTED[model])
    ramp = np.tile(np.arange(size[1], dtype=np.uint8) * 3, (size[0], 1))
    arrays = rig.assemble(
        rig.Rig(bent), np.repeat(ramp[..., None], 3, axis=2), ramp.astype(np.float32), undistort=True, where="bag"
    )
    assert np.abs(arrays["image"][..., 0].astype(float) - arrays["depth"])[4:-4, 4:-4].max() <= 3
    assert not np.array_equal(arrays["image"][..., 0], ramp)
    assert arrays["intrinsics"].reshape(-1).tolist() == list(bent.matrix)
    kept = rig.assemble(
        rig.Rig(bent), np.repeat(ramp[..., None], 3, axis=2), ramp.astype(np.float32), undistort=False, where=""
    )
    assert np.array_equal(kept["image"][..., 0], ramp)
    camera = camera_of(kept["intrinsics"], kept["distortion"])
    assert isinstance(camera, DistortedCamera) and "distortion" not in arrays
    found = np.array(camera.rays(np.array([9, 40]), np.array([30, 12])))
    seen = np.array([[[9.0, 30.0]], [[40.0, 12.0]]])
    remove = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    flat = remove(seen, bent.as_matrix(), np.array(bent.distortion))
    np.testing.assert_allclose(found.T, np.asarray(flat).reshape(-1, 2), atol=3e-3)


def test_a_lens_that_frames_cannot_carry_is_said():
    made = messages(depth_frame="color")
    for model, kept in (("plumb_bob", True), ("omni", False)):
        made[-1] = ("/rgb/camera_info", 1, camera(20, size=SIZE, model=model, distortion=(0.1, 0.2, 0, 0)))
        source, frame = sample(made, undistort=False)
        assert ("distortion" in source.keys) == ("distortion" in frame) == kept
        said = "is kept with the frames" if kept else "is left, and not known to the frames"
        assert f"lens distortion {said}" in source.notes


def links(*messages):
    return [link for message in messages for link in message.links]


def test_poses_are_found_along_chains_both_ways():
    tree = links(
        place("base", "camera", 1, 2, 3),
        place("camera", "color", 0, 0.015, 0),
        place("color", "color_optical", 0, 0, 0, *TURN),
        place("camera", "depth", 0, 0, 0),
        place("depth", "depth_optical", 0, 0, 0, *TURN),
    )
    found = rig.find_pose(tree, depth="depth_optical", colour="/color_optical")
    # Depth is 15 mm to the right of colour: y of a body's frame is to the left.
    assert np.array(found).reshape(3, 4) == pytest.approx(np.array(pose(x=0.015)).reshape(3, 4), abs=1e-9)
    assert rig.find_pose(tree, depth="depth_optical", colour="elsewhere") is None


@pytest.mark.parametrize(
    ("changes", "rectified", "matrix", "size"),
    [
        ({}, False, (30, 15.5, 11.5), SIZE),
        ({"binning": (2, 2)}, False, (15, 7.75, 5.75), (12, 16)),
        ({"offset": (4, 2)}, False, (30, 11.5, 9.5), SIZE),
        ({"projection": (28.0, 0, 14, 0, 0, 28, 10, 0, 0, 0, 1, 0)}, True, (28, 14, 10), SIZE),
        ({"projection": (28.0, 0, 14, 0, 0, 28, 10, 0, 0, 0, 1, 0)}, False, (30, 15.5, 11.5), SIZE),
        ({"projection": (0.0,) * 12}, True, (30, 15.5, 11.5), SIZE),
    ],
)
def test_cameras_as_recorded(changes, rectified, matrix, size):
    made = rig.lens_of(camera(30, size=SIZE, **changes), rectified=rectified)
    assert (made.matrix[0], made.matrix[2], made.matrix[5]) == pytest.approx(matrix)
    assert (made.height, made.width) == size


def test_a_camera_that_is_not_calibrated_is_none():
    assert rig.lens_of(camera(0), rectified=False) is None


def messages(*, depth_frame="depth", depth_size=SIZE, colour_camera=True, more=()):
    """A frame of a plane at 2 m."""
    stamp = 5 * MILLISECOND
    flat = np.full(depth_size, 2000, np.uint16)
    made = [
        ("/rgb/image", stamp, image(np.full((*SIZE, 3), 9, np.uint8), "rgb8", stamp, frame="color")),
        ("/depth/image", stamp, image(flat, "16UC1", stamp, frame=depth_frame)),
        ("/depth/camera_info", 1, camera(20 * depth_size[1] / SIZE[1], size=depth_size)),
        *(("/tf_static", 1, each) for each in more),
    ]
    return [*made, ("/rgb/camera_info", 1, camera(20, size=SIZE))] if colour_camera else made


def sample(made, encoding="uint16_mm", **options):
    recording = ListedRecording(made)
    source = RecordedFrames(recording.path, [recording], Data(encoding=encoding, recording={"change": 0, **options}))
    return source, source.read(0)


def test_transforms_that_are_recorded_register_depth():
    source, read = sample(messages(more=[place("color", "depth", 0.2, 0, 0)]))
    assert "depth is registered to colour in 1 recording" in source.notes
    assert not read["depth"][:, :2].any()
    assert (read["depth"][:, 2:] == 2).all()
    assert source.stored_depth(0).min() == 2000  # not yet registered


def test_extrinsics_that_are_given_win():
    _, read = sample(messages(more=[place("color", "depth", 0.2, 0, 0)]), extrinsics=(0.4, 0, 0, 0, 0, 0, 1))
    assert not read["depth"][:, :4].any()
    assert (read["depth"][:, 4:] == 2).all()


@pytest.mark.parametrize("scale", [0.5, 2])
def test_aligned_depth_of_another_size_gets_that_of_colour(scale):
    size = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    _, read = sample(messages(depth_frame="color", depth_size=size))
    assert read["depth"].shape == SIZE
    assert (read["depth"][1:-1, 1:-1] == 2).all()


def test_one_frame_or_a_transform_that_moves_nothing_needs_no_registration():
    for made in (messages(depth_frame="color"), messages(more=[place("color", "depth", 0, 0, 0)])):
        source, read = sample(made)
        assert (read["depth"] == 2).all()
        assert not any("registered" in note for note in source.notes)


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        (
            messages(),
            {},
            r"depth is in the frame 'depth' and colour in 'color', and no transform between them is recorded",
        ),
        (
            messages(more=[place("color", "depth", 0.1, 0, 0), place("color", "depth", 0.2, 0, 0)]),
            {},
            r"no transform that does not move between them is recorded: give data.recording.extrinsics",
        ),
        (
            messages(more=[place("color", "depth", 0.1, 0, 0)], colour_camera=False),
            {},
            r"the camera of colour is not recorded: give data.recording.intrinsics=fx,fy,cx,cy",
        ),
        (
            messages(depth_frame="color", depth_size=(12, 16)),
            {"register_depth": False},
            r"depth is 16x12, colour 32x24, and no cameras are recorded",
        ),
    ],
)
def test_what_is_not_recorded_is_asked_for(made, options, words):
    with pytest.raises(DataError, match=words):
        sample(made, **options)


def test_what_is_asked_for_can_be_given():
    _, read = sample(messages(), register_depth=False)
    assert (read["depth"] == 2).all()
    made = messages(more=[place("color", "depth", 0.2, 0, 0)], colour_camera=False)
    _, read = sample(made, intrinsics=(40, 40, 15.5, 11.5))
    assert read["intrinsics"][0, 0] == 40
    assert (read["depth"][:, 4:] == 2).all()


def test_a_camera_that_is_given_is_that_of_depth_with_the_same_pixels_too():
    source, read = sample(messages(depth_frame="color"), intrinsics=(40, 40, 15.5, 11.5))
    assert (read["depth"] == 2).all()
    assert read["intrinsics"][0, 0] == 40
    assert not any("registered" in note for note in source.notes)


def test_a_camera_of_another_size_is_refused():
    made = messages(depth_frame="color")
    made[-1] = ("/rgb/camera_info", 1, camera(40, size=(48, 64)))
    made[2] = ("/depth/camera_info", 1, camera(40, size=(48, 64)))
    with pytest.raises(
        DataError, match=r"colour is 32x24, but its camera is recorded for 64x48; give that of the image"
    ):
        sample(made)


def test_an_unknown_distortion_is_refused_unless_it_is_kept():
    made = messages(depth_frame="color")
    made[-1] = ("/rgb/camera_info", 1, camera(20, size=SIZE, model="omni", distortion=(0.1, 0.2)))
    with pytest.raises(DataError, match=r"distortion is 'omni'; known are plumb_bob"):
        sample(made)
    assert (sample(made, undistort=False)[1]["depth"] == 2).all()


@pytest.mark.parametrize(
    ("encoding", "declared", "metres", "words"),
    [
        ("16UC1", "uint16_mm", 2.0, ""),
        ("16UC1", "uint16/4000", 0.5, ""),
        ("mono16", "uint16/1000", 2.0, ""),
        ("mono16", "uint16_mm", 0, r"/depth/image is mono16, which has no unit .*declare it with --encoding"),
        ("16UC1", "float_m", 0, r"depth is stored as uint16, but encoding 'float_m' is float16"),
    ],
)
def test_units_are_stated_or_declared(encoding, declared, metres, words):
    made = messages(depth_frame="color")
    made[1] = (*made[1][:2], made[1][2]._replace(encoding=encoding))
    if words:
        with pytest.raises(DataError, match=words):
            sample(made, encoding=declared)
    else:
        source, read = sample(made, encoding=declared)
        assert (read["depth"] == metres).all()
        assert source.encoding(0) == declared


def test_a_message_with_no_transforms():
    assert (sample(messages(depth_frame="color", more=[TransformsMessage(0, ())]))[1]["depth"] == 2).all()
