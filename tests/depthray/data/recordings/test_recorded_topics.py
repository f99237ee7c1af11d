"""Topics that are found, named, ambiguous and missing."""

from __future__ import annotations

import numpy as np
import pytest
from listed import ListedRecording, camera, colour, depth, image, place

from depthray.data.recordings.messages import CompressedMessage
from depthray.data.recordings.topics import choose
from depthray.errors import DataError

GREY = image(np.zeros((4, 6), np.uint8), "mono8", 1)
INFRARED = image(np.zeros((4, 6), np.uint16), "mono16", 1)
FLOATS = image(np.ones((4, 6), np.float32), "32FC1", 1)
JPEG = CompressedMessage(1, "camera", "rgb8; jpeg compressed bgr8", np.zeros(9, np.uint8))
PACKED = CompressedMessage(1, "camera", "16UC1; compressedDepth png", np.zeros(9, np.uint8))
COLOUR, DEPTH, CAMERA = colour(1), depth(1), camera(5)

REALSENSE = {  # realsense2_camera with align_depth
    "/camera/color/image_raw": COLOUR,
    "/camera/color/image_raw/compressed": JPEG,
    "/camera/color/camera_info": CAMERA,
    "/camera/depth/image_rect_raw": DEPTH,
    "/camera/depth/camera_info": CAMERA,
    "/camera/aligned_depth_to_color/image_raw": DEPTH,
    "/camera/aligned_depth_to_color/image_raw/compressedDepth": PACKED,
    "/camera/aligned_depth_to_color/camera_info": CAMERA,
    "/camera/infra1/image_rect_raw": GREY,
    "/tf_static": place("a", "b", 0, 0, 0),
}
KINECT = {  # openni and freenect
    "/camera/rgb/image_color": COLOUR,
    "/camera/rgb/camera_info": CAMERA,
    "/camera/depth_registered/image_raw": DEPTH,
    "/camera/depth/image": FLOATS,
    "/camera/depth_registered/camera_info": CAMERA,
    "/camera/ir/image_raw": INFRARED,
}
TUM = {  # bags of TUM RGB-D
    "/camera/rgb/image_color": COLOUR,
    "/camera/rgb/camera_info": CAMERA,
    "/camera/depth/image": FLOATS,
    "/camera/depth/camera_info": CAMERA,
    "/tf": place("a", "b", 0, 0, 0),
}
PACKED_ONLY = {
    "/oak/rgb/image_raw/compressed": JPEG,
    "/oak/rgb/camera_info": CAMERA,
    "/oak/stereo/image_raw/compressedDepth": PACKED,
    "/oak/stereo/camera_info": CAMERA,
    "/oak/left/image_raw": GREY,
}
LIBREALSENSE = {  # rs-record, the viewer
    "/device_0/sensor_0/Depth_0/image/data": image(np.zeros((4, 6), np.uint16), "mono16", 1),
    "/device_0/sensor_0/Depth_0/info/camera_info": CAMERA,
    "/device_0/sensor_0/Infrared_1/image/data": GREY,
    "/device_0/sensor_1/Color_0/image/data": COLOUR,
    "/device_0/sensor_1/Color_0/info/camera_info": CAMERA,
}
TWO = {f"/{name}/{topic}": message for name in ("left", "right") for topic, message in TUM.items()}
TWO = {topic.replace("//", "/"): message for topic, message in TWO.items()}


def chosen(topics, **named):
    return choose(ListedRecording([(topic, 1, message) for topic, message in topics.items()]), **named)


@pytest.mark.parametrize(
    ("topics", "colour", "depth", "colour_camera", "depth_camera"),
    [
        (
            REALSENSE,
            "/camera/color/image_raw",
            "/camera/aligned_depth_to_color/image_raw",
            "/camera/color/camera_info",
            "/camera/aligned_depth_to_color/camera_info",
        ),
        (
            KINECT,
            "/camera/rgb/image_color",
            "/camera/depth_registered/image_raw",
            "/camera/rgb/camera_info",
            "/camera/depth_registered/camera_info",
        ),
        (TUM, "/camera/rgb/image_color", "/camera/depth/image", "/camera/rgb/camera_info", "/camera/depth/camera_info"),
        (
            PACKED_ONLY,
            "/oak/rgb/image_raw/compressed",
            "/oak/stereo/image_raw/compressedDepth",
            "/oak/rgb/camera_info",
            "/oak/stereo/camera_info",
        ),
        (
            LIBREALSENSE,
            "/device_0/sensor_1/Color_0/image/data",
            "/device_0/sensor_0/Depth_0/image/data",
            "/device_0/sensor_1/Color_0/info/camera_info",
            "/device_0/sensor_0/Depth_0/info/camera_info",
        ),
        ({"/a": COLOUR, "/b": DEPTH}, "/a", "/b", "", ""),
        ({"/a": GREY, "/b": DEPTH}, "/a", "/b", "", ""),  # a grey camera, where there is no other
    ],
    ids=["realsense", "kinect", "tum", "packed", "librealsense", "bare", "grey"],
)
def test_topics_are_found(topics, colour, depth, colour_camera, depth_camera):
    found = chosen(topics)
    assert (found.colour, found.depth) == (colour, depth)
    assert (found.colour_camera, found.depth_camera) == (colour_camera, depth_camera)
    assert found.transforms == tuple(sorted(topic for topic in topics if "tf" in topic))


def test_topics_that_are_named_are_taken():
    found = chosen(REALSENSE, colour="/camera/infra1/image_rect_raw", depth="/camera/depth/image_rect_raw")
    assert (found.colour, found.depth) == ("/camera/infra1/image_rect_raw", "/camera/depth/image_rect_raw")
    assert found.depth_camera == "/camera/depth/camera_info"


def test_colour_of_the_camera_whose_depth_is_named():
    assert chosen(TWO, depth="/right/camera/depth/image").colour == "/right/camera/rgb/image_color"


@pytest.mark.parametrize(
    ("topics", "named", "words"),
    [
        (TWO, {}, r"several topics may be depth: /left/camera/depth/image, /right/camera/depth/image; name it: data"),
        ({"/a": COLOUR, "/b": COLOUR, "/d": DEPTH}, {}, r"several topics may be colour: /a, /b; name it: .*colour=/a"),
        ({"/a": COLOUR}, {}, r"no topic of depth; of images: /a \(rgb8\); name it"),
        ({"/a": DEPTH}, {}, r"no topic of colour; of images: /a \(16UC1\)"),
        ({"/a": COLOUR, "/ir": INFRARED}, {}, r"no topic of depth; of images: /a \(rgb8\), /ir \(mono16\)"),
        ({"/a": CAMERA}, {}, r"no topics of images; its topics: /a \(CameraMessage\)"),
        ({}, {}, r"no topics of images; its topics: none"),
        (
            TUM,
            {"depth": "/camera/depth/imag"},
            r"recording.depth=/camera/depth/imag is no topic .*did you mean '/camera",
        ),
    ],
)
def test_what_is_not_clear_is_asked_for(topics, named, words):
    with pytest.raises(DataError, match=words):
        chosen(topics, **named)


def test_a_recording_without_a_readable_image():
    with pytest.raises(DataError, match="not one image can be read, cut off; remove it or repair it"):
        choose(ListedRecording([("/a", 1, COLOUR), ("/b", 1, DEPTH)], damaged=0))
