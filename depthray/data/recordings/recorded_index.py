"""A recording -> its frames: pairs of colour and depth, which of them are kept, and how depth comes to colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from depthray.data.recordings import clocks, pixels, rig, topics
from depthray.data.recordings.clocks import SECOND, Pairing, Stamped
from depthray.data.recordings.kept_frames import Chooser
from depthray.data.recordings.messages import CompressedMessage, ImageMessage, Pictures
from depthray.data.recordings.recording import Recording
from depthray.data.recordings.rig import Lens, Pose, Rig
from depthray.data.recordings.scan import ImageStream, ScannedRecording, scan
from depthray.data.recordings.topics import ChosenTopics
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import RecordingOptions


class RecordedPair(NamedTuple):
    """Where the two images of a frame are."""

    time: int  # nanoseconds, of colour
    colour: Any  # positions
    depth: Any
    rig: int


class RecordedIndex(NamedTuple):
    """The frames of a recording, and what became of the rest."""

    topics: ChosenTopics
    pairs: list[RecordedPair]  # in the order of their times
    rigs: list[Rig]
    unit: str  # encoding of depth that its images state; "" = none
    encoding: str  # of its images
    left_out: dict[str, int]  # by why
    apart: int  # nanoseconds between the images of a pair, the most


def index_recording(recording: Recording, options: RecordingOptions) -> RecordedIndex:
    """The frames of a recording; a DataError where it has none, or where its clocks or cameras do not fit together."""
    chosen = topics.choose(recording, colour=options.colour, depth=options.depth)
    scanned = scan(recording, chosen, by_recorder=options.clock == "recorder")
    colours, repeated = clocks.in_order(scanned.colour.images)
    moved = [image._replace(time=image.time + round(options.offset * SECOND)) for image in scanned.depth.images]
    depths, depths_repeated = clocks.in_order(moved)
    bound = round(options.sync * SECOND)
    if options.clock == "sensor":
        _refuse_drift(recording, clocks.drift(colours, depths), bound)
    pairing = clocks.pair(_times(colours), _times(depths), bound=bound)
    if not pairing.pairs:
        raise DataError(f"{recording.path}: {_why_no_pairs(pairing, options)}")
    rigs: dict[tuple[int, int], int] = {}
    pairs = []
    for colour, depth in ((colours[one], depths[other]) for one, other in pairing.pairs):
        number = rigs.setdefault((colour.camera, depth.camera), len(rigs))
        pairs.append(RecordedPair(colour.time, colour.position, depth.position, number))
    made = [_rig(recording, scanned, chosen, cameras, options) for cameras in rigs]
    kept, left_out = _keep(recording, chosen, pairs, options)
    why = f"within {options.sync * 1000:g} ms"
    left_out = {
        f"colour images without depth {why}": pairing.colour_alone,
        f"depth images without colour {why}": pairing.depth_alone,
        "images with the time of another": repeated + depths_repeated,
        "images without a time of their own": scanned.unstamped,
        **left_out,
    }
    apart = int(np.abs(pairing.distances).max())
    return RecordedIndex(chosen, kept, made, scanned.depth.unit, scanned.depth.encoding, left_out, apart)


def read_pictures(recording: Recording, topic: str, position: Any) -> Pictures:
    """The image of a topic at a position."""
    message = recording.message(topic, position)
    if not isinstance(message, ImageMessage | CompressedMessage):
        raise DataError(f"{recording.path}: {topic} is no longer a topic of images; was the file changed?")
    return message


def _times(images: Sequence[Stamped]) -> clocks.Times:
    return np.array([image.time for image in images], np.int64)


def _refuse_drift(recording: Recording, drift: int, bound: int) -> None:
    if abs(drift) > bound:
        raise DataError(
            f"{recording.path}: the clocks of colour and depth drift apart by {abs(drift) / 1e6:.0f} ms over the "
            f"recording, more than the {bound / 1e6:g} ms of data.recording.sync, so that images of one time are not "
            "of one moment; data.recording.clock=recorder pairs them by when they were recorded"
        )


def _why_no_pairs(pairing: Pairing, options: RecordingOptions) -> str:
    apart = pairing.nearest_alone / SECOND
    advice = "data.recording.sync allows more" if apart < 10 * options.sync else "do their clocks differ?"
    return (
        f"no colour image has depth within {options.sync:g} s of it, the nearest is {apart:.6g} s away; {advice} "
        "(data.recording.clock=recorder pairs by when they were recorded, data.recording.offset moves the times of "
        "depth)"
    )


def _rig(
    recording: Recording,
    scanned: ScannedRecording,
    chosen: ChosenTopics,
    cameras: tuple[int, int],
    options: RecordingOptions,
) -> Rig:
    """The rig of the frames that have two cameras of the recording."""
    where = str(recording.path)
    colour, depth = _lenses(scanned, chosen, cameras, options)
    if options.undistort:
        for known in filter(None, (colour, depth)):
            rig.check_model(known, where=where)
    if options.register_depth is False:
        return Rig(colour)
    pose = _find_pose(scanned, options, where)
    if pose is None or (
        rig.is_identity(pose)
        and rig.is_same_view(colour, depth, distortion=options.undistort)
        and not options.register_depth
    ):
        return Rig(colour)
    for lens, key, name in ((colour, "intrinsics", "colour"), (depth, "depth_intrinsics", "depth")):
        if lens is None:
            raise DataError(
                f"{where}: depth is not registered to colour, and the camera of {name} is not recorded: give "
                f"data.recording.{key}=fx,fy,cx,cy, or data.recording.register_depth=false if it is"
            )
    assert colour is not None
    if colour.distortion and not options.undistort:
        raise DataError(
            f"{where}: depth is registered to colour without distortion; leave out data.recording.undistort"
        )
    return Rig(colour, depth, pose)


def _lenses(
    scanned: ScannedRecording, chosen: ChosenTopics, cameras: tuple[int, int], options: RecordingOptions
) -> tuple[Lens | None, Lens | None]:
    """The cameras of colour and depth, as recorded or as given."""
    colour = _lens(scanned.colour, chosen.colour, cameras[0], options.intrinsics)
    depth = _lens(scanned.depth, chosen.depth, cameras[1], options.depth_intrinsics)
    if options.intrinsics is not None and options.depth_intrinsics is None and depth is not None:
        recorded = _lens(scanned.colour, chosen.colour, cameras[0], None)
        # Of two cameras that were recorded as one, the numbers that are given are those of both.
        depth = colour if recorded is not None and rig.is_same_view(recorded, depth) else depth
    return colour, depth


def _lens(stream: ImageStream, topic: str, camera: int, given: Sequence[float] | None) -> Lens | None:
    if given is not None:
        return rig.given_lens(given)
    if not stream.cameras:
        return None
    return rig.lens_of(stream.cameras[camera], rectified=topics.is_rectified(topic))


def _find_pose(scanned: ScannedRecording, options: RecordingOptions, where: str) -> Pose | None:
    """The pose from depth to colour; a DataError where they are in two coordinate frames that nothing joins."""
    if options.extrinsics is not None:
        return rig.given_pose(options.extrinsics)
    colour, depth = scanned.colour.frame, scanned.depth.frame
    if colour == depth:
        return rig.IDENTITY
    still = [link for link in scanned.links if link.child not in scanned.moving]
    pose = rig.find_pose(still, depth=depth, colour=colour)
    if pose is None:
        moves = " that does not move" if rig.find_pose(scanned.links, depth=depth, colour=colour) else ""
        raise DataError(
            f"{where}: depth is in the frame '{depth}' and colour in '{colour}', and no transform{moves} between them "
            "is recorded: give data.recording.extrinsics=x,y,z,qx,qy,qz,qw (the depth camera in colour's frame), or "
            "data.recording.register_depth=false where depth has the pixels of colour already"
        )
    return pose


def _keep(
    recording: Recording, chosen: ChosenTopics, pairs: Sequence[RecordedPair], options: RecordingOptions
) -> tuple[list[RecordedPair], dict[str, int]]:
    """The pairs that are kept, and how many are not, by why."""
    nth = list(pairs[:: options.every])
    if not (options.change or options.motion):
        return nth, {f"frames that are not every {options.every}th": len(pairs) - len(nth)}
    chooser = Chooser(least_change=options.change, least_motion=options.motion)
    kept = []
    for pair in nth:
        message = read_pictures(recording, chosen.colour, pair.colour)
        if chooser.keep(pixels.read_colour(message, where=f"{recording.path}: {chosen.colour}")):
            kept.append(pair)
    recording.close()
    return kept, {
        f"frames that are not every {options.every}th": len(pairs) - len(nth),
        "near-duplicates of the frame before": chooser.skipped.duplicates,
        "frames in which the camera has not moved enough": chooser.skipped.unmoved,
    }
