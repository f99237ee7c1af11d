"""Images of recordings -> arrays: plain pixels, JPEG and PNG, and the two transports of depth that ROS compresses."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings import rvl
from depthray.data.recordings.messages import CompressedMessage, ImageMessage, Pictures
from depthray.errors import DataError

Pixels = NDArray[Any]

# How plain pixels are stored, and what OpenCV makes RGB of. It names Bayer patterns by the second row and column.
COLOURS: dict[str, tuple[int, int | None]] = {  # channels, conversion
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "YUYV": (2, cv2.COLOR_YUV2RGB_YUY2),  # of librealsense
}
GREYS = ("mono8", "8UC1")
# What a depth image's encoding says of its unit: REP 118 has millimetres in 16UC1 and metres in 32FC1, and no others.
DEPTHS = {"16UC1": ("u2", "uint16_mm"), "32FC1": ("f4", "float_m"), "mono16": ("u2", "")}
HEADER = struct.Struct("<iff")  # of compressedDepth: kind, and the two parameters of quantised inverse depth
SIZE = struct.Struct("<II")  # of RVL: columns, rows


def encoding_of(message: Pictures) -> str:
    """The encoding of the image that a message has, such as rgb8 or 16UC1; that of a file is known when it is read."""
    if isinstance(message, ImageMessage):
        return message.encoding
    return message.format.partition(";")[0].strip()


def is_depth(message: Pictures) -> bool:
    """Whether a message has depth, or other numbers of 16 or 32 bits."""
    return encoding_of(message) in DEPTHS


def stated_unit(message: Pictures) -> str:
    """The encoding of `depthray.data.encodings` that a depth image states; "" where it states none."""
    return DEPTHS.get(encoding_of(message), ("", ""))[1]


def read_colour(message: Pictures, *, where: str) -> NDArray[np.uint8]:
    """Message -> (H,W,3) uint8 RGB"""
    if isinstance(message, CompressedMessage):
        image = _decode_file(message.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, message, where=where)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image).astype(np.uint8, copy=False)
    if message.encoding not in COLOURS:
        raise DataError(
            f"{where}: colour is '{message.encoding}'; known are {', '.join(COLOURS)}, and JPEG and PNG: name another "
            "topic with data.recording.colour"
        )
    channels, conversion = COLOURS[message.encoding]
    pixels = _rows(message, np.dtype(np.uint8), channels, where=where)
    if conversion is None:
        return np.array(pixels)  # a copy, not a view of the message, which may be read-only
    if channels == 2 and message.width % 2:
        raise DataError(f"{where}: {message.encoding} of an odd width, {message.width}")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)


def read_depth(message: Pictures, *, where: str) -> Pixels:
    """Message -> (H,W) depth as stored, uint16 or float32, in the byte order of this machine"""
    encoding = encoding_of(message)
    if encoding not in DEPTHS:
        raise DataError(
            f"{where}: depth is '{encoding}'; known are {', '.join(DEPTHS)}, plain, PNG or compressedDepth: name "
            "another topic with data.recording.depth"
        )
    if isinstance(message, CompressedMessage):
        if "compressedDepth" in message.format:
            return _read_compressed_depth(message, encoding, where=where)
        pixels = _decode_file(message.data, cv2.IMREAD_UNCHANGED, message, where=where)
        return _check_depth(pixels, np.dtype(DEPTHS[encoding][0]), where=where)
    dtype = np.dtype(DEPTHS[encoding][0]).newbyteorder(">" if message.big_endian else "<")
    return np.ascontiguousarray(_rows(message, dtype, 1, where=where), dtype.newbyteorder("="))


def _rows(message: ImageMessage, dtype: np.dtype[Any], channels: int, *, where: str) -> Pixels:
    """Plain image -> (H,W) or (H,W,C) pixels, a view of the message: rows may have bytes at their end."""
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if min(height, width) < 1 or step < row or message.data.size != height * step:
        raise DataError(
            f"{where}: {message.data.size} bytes for {width}x{height} of {message.encoding} with {step} bytes a row; "
            "the message is damaged"
        )
    pixels = message.data.reshape(height, step)[:, :row]
    shape = (height, width) if channels == 1 else (height, width, channels)
    # A copy of the rows where they have bytes at their end, without which a view of another dtype is not possible.
    return np.ascontiguousarray(pixels).view(dtype).reshape(shape)


def _read_compressed_depth(message: CompressedMessage, encoding: str, *, where: str) -> Pixels:
    """The transport compressedDepth -> (H,W) uint16 as stored, or float32 metres of quantised inverse depth"""
    content = message.data.tobytes()
    if len(content) <= HEADER.size:
        raise DataError(f"{where}: an empty message of compressedDepth")
    _, scale, shift = HEADER.unpack_from(content)
    packed = content[HEADER.size :]
    if message.format.rstrip().endswith("rvl"):
        stored = _read_rvl(packed, where=where)
    else:
        pixels = _decode_file(np.frombuffer(packed, np.uint8), cv2.IMREAD_UNCHANGED, message, where=where)
        stored = _check_depth(pixels, np.dtype(np.uint16), where=where)
    if encoding != "32FC1":
        return stored
    # In float32, as the transport itself; 0 is unmeasured.
    metres = np.zeros(stored.shape, np.float32)
    np.divide(np.float32(scale), stored.astype(np.float32) - np.float32(shift), out=metres, where=stored > 0)
    return metres


def _read_rvl(packed: bytes, *, where: str) -> Pixels:
    """Size and RVL -> (H,W) uint16"""
    try:
        width, height = SIZE.unpack_from(packed)
        if not 0 < width * height <= 10 * len(packed) + 2**20:  # a size read from damaged bytes
            raise ValueError(f"a size of {width}x{height} in {len(packed)} bytes")
        return rvl.decode(packed[SIZE.size :], width * height).reshape(height, width)
    except (ValueError, struct.error) as error:
        raise DataError(f"{where}: damaged RVL: {error}") from None


def _decode_file(content: Pixels, flags: int, message: CompressedMessage, *, where: str) -> Pixels:
    """The bytes of an image file -> its pixels, BGR"""
    try:
        pixels = cv2.imdecode(content, flags) if content.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DataError(
            f"{where}: not a readable image of format '{message.format}' ({content.size} bytes); known are JPEG, PNG "
            "and compressedDepth"
        )
    return pixels


def _check_depth(pixels: Pixels, dtype: np.dtype[Any], *, where: str) -> Pixels:
    if pixels.ndim != 2 or pixels.dtype != dtype:
        raise DataError(f"{where}: depth is an image of {pixels.dtype} {pixels.shape}, wanted (H, W) of {dtype}")
    return pixels
