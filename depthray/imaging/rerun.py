"""A Rerun recording of frames: photograph, true and predicted depth as point clouds, seen by one camera.

Needs the extra `viz` (`pip install 'depthray[viz]'`). Opened with `rerun FILE.rrd`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError
from depthray.imaging.camera import Camera
from depthray.imaging.export import points


class RecordedFrame(NamedTuple):
    """One frame; all maps have the size of the image."""

    id: str
    image: NDArray[np.uint8]  # (H,W,3) RGB
    truth: NDArray[np.float32]  # (H,W) metres, 0 = unmeasured
    prediction: NDArray[np.float32]  # (H,W) metres
    camera: Camera


def write_recording(path: Path, frames: Iterable[RecordedFrame]) -> Path:
    """Frames -> a recording at `path`, one step of the timeline `frame` for each."""
    try:
        import rerun as rr
    except ImportError:
        raise UsageError("a recording needs Rerun: pip install 'depthray[viz]'") from None
    recording = rr.RecordingStream("depthray")
    recording.save(path)
    # Rerun's own default is y up; the field's cameras have y down.
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    for number, view in enumerate(frames):
        recording.set_time("frame", sequence=number)
        height, width = view.truth.shape
        focal, centre = view.camera[:2], view.camera[2:]
        recording.log(
            "world/camera", rr.Pinhole(focal_length=focal, principal_point=centre, width=width, height=height)
        )
        recording.log("world/camera/image", rr.Image(view.image))
        recording.log("frame_id", rr.TextDocument(view.id))
        for name in ("truth", "prediction"):
            cloud = points(getattr(view, name), view.image, camera=view.camera)
            recording.log(f"world/{name}", rr.Points3D(cloud["xyz"], colors=cloud["rgb"], radii=0.01))
    recording.disconnect()
    return path
