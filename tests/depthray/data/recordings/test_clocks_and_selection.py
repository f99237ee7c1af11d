"""Which images become frames: their times, clocks that differ and drift, and what is left out of a recording."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from listed import BASE, MILLISECOND, ListedRecording, colour, depth, image, two

from depthray.config.sections import Data, RecordingOptions
from depthray.data.recordings import clocks, kept_frames
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recorded_index import index_recording
from depthray.data.rendering.render import render_frame
from depthray.errors import DataError

KEEP = {"change": 0}


def index(messages, **options):
    return index_recording(ListedRecording(messages), RecordingOptions(**{**KEEP, **options}))


def frames(*recordings, **options):
    return RecordedFrames(Data().root or recordings[0].path, recordings, Data(recording={**KEEP, **options}))


def times(indexed):
    return [(pair.time - BASE) // MILLISECOND for pair in indexed.pairs]


def left_out(indexed):
    return {reason: count for reason, count in indexed.left_out.items() if count}


@pytest.mark.parametrize(
    ("colours", "depths", "bound", "pairs"),
    [
        ([0, 33, 66], [1, 34, 67], 20, [(0, 0), (1, 1), (2, 2)]),
        ([0, 33, 66], [34], 20, [(1, 0)]),  # depth was dropped
        ([33], [0, 34, 66], 20, [(0, 1)]),  # colour was dropped
        ([0, 33, 66, 99], [0, 66], 20, [(0, 0), (2, 1)]),  # depth at half the rate
        ([0, 10], [5], 20, [(0, 0)]),  # one depth for one colour alone
        ([0, 100], [20, 121], 20, [(0, 0)]),  # at the bound, and beyond it
        ([0, 33], [21, 54], 20, [(1, 0)]),  # 12 ms are nearer than 21
        ([0], [500], 20, []),
        ([], [1], 20, []),
        ([1], [], 20, []),
    ],
)
def test_pairs_are_nearest_to_each_other_within_the_bound(colours, depths, bound, pairs):
    paired = clocks.pair(np.array(colours, np.int64), np.array(depths, np.int64), bound=bound)
    assert paired.pairs == pairs
    assert paired.distances.tolist() == [depths[other] - colours[one] for one, other in pairs]
    assert (paired.colour_alone, paired.depth_alone) == (len(colours) - len(pairs), len(depths) - len(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_any_times(seed):
    random = np.random.default_rng(seed)
    colours, depths = (np.unique(random.integers(0, 10_000, 200)) for _ in range(2))
    paired = clocks.pair(colours, depths, bound=15)
    numbers = np.array(paired.pairs)
    assert len(np.unique(numbers[:, 0])) == len(np.unique(numbers[:, 1])) == len(numbers)
    distance = np.abs(colours[:, None] - depths[None])
    chosen = distance[numbers[:, 0], numbers[:, 1]]
    assert chosen.max() <= 15
    assert (chosen == distance.min(axis=1)[numbers[:, 0]]).all()
    assert (chosen == distance.min(axis=0)[numbers[:, 1]]).all()


def test_what_is_dropped_is_counted():
    found = index(two([0, 33, 66, 99, 132], [2, 35, 101, 400]))
    assert times(found) == [0, 33, 99]
    assert left_out(found) == {
        "colour images without depth within 20 ms": 2,
        "depth images without colour within 20 ms": 1,
    }
    assert found.apart == 2 * MILLISECOND


def test_images_of_one_time_and_in_another_order():
    found = index(two([66, 0, 33, 33], [0, 33, 66]))
    assert times(found) == [0, 33, 66]
    assert left_out(found) == {"images with the time of another": 1}


def test_clocks_that_drift_are_refused_and_paired_by_the_recorder():
    # 40 s at 10 Hz; depth's clock runs 1 % fast, so that it has always some colour near it.
    messages = []
    for number in range(400):
        logged = (number + 1) * 100 * MILLISECOND
        messages.append(("/rgb/image", logged, colour(logged)))
        messages.append(
            ("/depth/image", logged + 3 * MILLISECOND, depth(round(logged * 1.01), metres=1 + number / 100))
        )
    with pytest.raises(DataError, match=r"drift apart by 3\d\d ms over the recording, more than the 60 ms") as error:
        index(messages, sync=0.06)
    assert "data.recording.clock=recorder" in str(error.value)
    source = frames(ListedRecording(messages), clock="recorder")
    assert len(source.frames) == 400
    assert source.read(399)["depth"][0, 0] == pytest.approx(4.99)  # of the moment of colour


def test_a_lag_that_does_not_grow_is_no_drift():
    steps = range(0, 4000, 100)
    assert len(index(two(steps, steps, lags=(5, 90))).pairs) == 40


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (-3600, 4), (-3600.5, 0)])
def test_clocks_with_an_offset(offset, count):
    late = [time + 3_600_000 for time in (0, 33, 66, 99)]
    messages = two([0, 33, 66, 99], late, lags=(0, -3_600_000))
    if count:
        assert times(index(messages, offset=offset)) == [0, 33, 66, 99]
    else:
        with pytest.raises(DataError, match=r"no colour image has depth within 0\.02 s of it, the nearest is"):
            index(messages, offset=offset)
    assert times(index(messages, clock="recorder")) == [0, 33, 66, 99]


def test_images_without_times():
    messages = [(topic, logged, message._replace(stamp=0)) for topic, logged, message in two([0, 33], [1, 34])]
    with pytest.raises(DataError, match=r"/rgb/image have no time of their own; data.recording.clock=recorder takes"):
        index(messages)
    found = index([*messages, *two([100], [100])])
    assert times(found) == [100]
    assert left_out(found) == {"images without a time of their own": 4}
    assert times(index(messages, clock="recorder")) == [0, 33]


def test_every_nth_frame():
    steps = range(0, 1000, 100)
    found = index(two(steps, steps), every=4)
    assert times(found) == [0, 400, 800]
    assert left_out(found) == {"frames that are not every 4th": 7}


def test_a_damaged_recording_gives_what_is_before_it_and_says_so():
    messages = two(range(0, 1000, 100), range(0, 1000, 100))
    source = frames(ListedRecording(messages, damaged=10))
    assert len(source.frames) == 5
    assert source.notes[0] == "run.bag is damaged: what was recorded after that is left out (cut off)"


def test_a_gap_begins_another_scene():
    steps = [0, 100, 200, 15_000, 15_100, 40_000]
    source = frames(ListedRecording(two(steps, steps)), gap=10)
    assert [frame.scene for frame in source.frames] == [f"run-{part:02d}" for part in (0, 0, 0, 1, 1, 2)]
    assert len({frame.id for frame in source.frames}) == 6


def test_several_recordings_are_summed_up():
    recordings = [
        ListedRecording(two([0, 100, 200], [0]), name="a"),
        ListedRecording(two([0, 100], [0]), name="b"),
        ListedRecording(two([0, 100], [0, 100]), name="c"),
    ]
    notes = frames(*recordings).notes
    assert notes[0] == "3 colour images without depth within 20 ms left out (a 2, b 1)"
    assert any(note.startswith("no camera of colour in a, b, c, so frames have no intrinsics") for note in notes)


def test_the_fingerprint_is_of_frames_and_options():
    def made(messages, **options):
        return frames(ListedRecording(messages), **options).fingerprint

    steps = range(0, 1000, 100)
    same = made(two(steps, steps))
    others = [made(two(steps, steps), every=2), made(two(steps, steps), undistort=False), made(two(steps[:9], steps))]
    assert made(two(steps, steps)) == same
    assert len({same, *others}) == 4


def view(shift, *, noise=0, exposure=0):
    """(96,128,3): a rendered room, moved by pixels, with noise and another exposure."""
    wide = render_frame(0, 1, height=96, width=256)["image"][:, 40 + shift : 168 + shift]
    random = np.random.default_rng(shift)
    return np.clip(wide + random.normal(0, noise or 1e-9, wide.shape) + exposure, 0, 255).astype(np.uint8)


def test_near_duplicates_and_motion_are_told_from_noise():
    still, exposed = kept_frames.thumbnail(view(0)), kept_frames.thumbnail(view(0, noise=4, exposure=3))
    assert kept_frames.change(still, exposed) < 2 < kept_frames.change(still, kept_frames.thumbnail(view(3)))
    small = view(0)
    cv2.circle(small, (30, 30), 6, (255, 0, 0), -1)  # what moves may be small
    assert kept_frames.change(still, kept_frames.thumbnail(small)) > 2
    assert kept_frames.motion(still, exposed) < 0.005
    assert kept_frames.motion(still, kept_frames.thumbnail(view(13))) == pytest.approx(0.1, rel=0.1)
    nearer = cv2.resize(view(0)[8:-8, 8:-8], (128, 96), interpolation=cv2.INTER_AREA)
    assert kept_frames.motion(still, kept_frames.thumbnail(nearer)) > 0.015  # forward
    other = render_frame(7, 30, height=96, width=128)["image"]
    assert kept_frames.motion(still, kept_frames.thumbnail(other)) > 0.1


def moving(shifts):
    messages = []
    for number, shift in enumerate(shifts):
        stamp = (number + 1) * 33 * MILLISECOND
        messages.append(("/rgb/image", stamp, image(view(shift, noise=2), "rgb8", stamp)))
        messages.append(("/depth/image", stamp, depth(stamp, size=(96, 128))))
    return messages


def test_near_duplicates_are_left_out():
    found = index(moving([0, 0, 0, 4, 4, 8]), change=2)
    assert [pair.time // (33 * MILLISECOND) - 1 for pair in found.pairs] == [0, 3, 5]
    assert left_out(found) == {"near-duplicates of the frame before": 3}


def test_frames_by_motion():
    found = index(moving(range(0, 40, 2)), motion=0.05)  # 6.4 pixels
    kept = [pair.time // (33 * MILLISECOND) - 1 for pair in found.pairs]
    assert set(np.diff(kept)) <= {3, 4, 5}
    assert sum(left_out(found).values()) == 20 - len(kept)
