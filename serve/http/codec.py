"""Bytes of a request -> arrays, and predicted maps -> bytes of an answer. Pure: no HTTP, no network, no files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS
from depthray.data import encodings
from depthray.data.resize import resize_colour
from depthray.errors import DataError
from depthray.imaging import export, photos
from depthray.imaging.camera import Camera
from serve.http import arrays, multipart, rasters
from serve.http.body import image_limits
from serve.http.problems import Problem
from serve.http.query import SCALES, CameraView, Options
from serve.settings import RequestLimits

Rgb = NDArray[np.uint8]
Map = NDArray[np.float32]

METRIC = ("depth", "sigma")  # planes in metres
OTHERS = ("background", "sparse", "semantics", "instances")
FIELDS = ("image", *OTHERS)
_RAW = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG", "image/webp": "WebP"}
# curl declares every body without a Content-Type of its own as a form; the first bytes decide what it is.
_UNDECLARED = ("", "application/octet-stream", "application/x-www-form-urlencoded", "image/*")
_NPZ = ("application/x-npz", "application/zip", "application/npz")
_FORM = "multipart/form-data"
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WebP"}
_QUALITIES = {
    "image/webp": (".webp", (cv2.IMWRITE_WEBP_QUALITY, 90)),
    "image/jpeg": (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 92)),
}
_LARGEST_WEBP = 16_383  # pixels of a side, by the format


class InputImage(NamedTuple):
    """The decoded inputs of one prediction."""

    rgb: Rgb  # (H,W,3), upright
    others: dict[str, NDArray[Any]]  # further inputs, (H,W) or (H,W,3)


class Upload(NamedTuple):
    """The undecoded inputs of one image of a batch."""

    name: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Encoded:
    """The body of an answer, and the headers that describe it."""

    data: bytes
    media: str
    headers: dict[str, str] = field(default_factory=dict)


def read(body: bytes, content_type: str, bounds: RequestLimits) -> InputImage:
    """The body of a request -> its image and further inputs; a Problem or DataError if it is not usable."""
    media = multipart.media_type(content_type)
    if not body:
        raise Problem(400, "the body is empty; send the bytes of a JPEG, PNG or WebP image")
    # Of forms and archives each file is checked by its own first bytes.
    if media.kind == _FORM:
        parts = multipart.parse(body, media.parameters.get("boundary", ""), most=len(FIELDS))
        return read_files(_by_name(parts), bounds)
    if media.kind in _NPZ:
        return _read_npz(body, bounds)
    _check_kind(body, media.kind)
    return read_files({"image": body}, bounds)


def read_files(files: Mapping[str, bytes], bounds: RequestLimits) -> InputImage:
    """Files by the name of the input -> arrays of one size."""
    if "image" not in files:
        raise Problem(422, "there is no part 'image'")
    allowed = image_limits(bounds)
    rgb = photos.decode(files["image"], where="image", limits=allowed)
    others = {key: _read_other(key, data, allowed) for key, data in files.items() if key != "image"}
    return _check_sizes(InputImage(rgb, others))


def read_batch(body: bytes, content_type: str, bounds: RequestLimits) -> list[Upload]:
    """A form with several parts 'image' -> each with the further inputs of the same index."""
    media = multipart.media_type(content_type)
    if media.kind != _FORM:
        raise Problem(415, f"a batch is {_FORM} with a part 'image' for each image")
    most = bounds.batch_images * len(FIELDS)
    columns: dict[str, list[multipart.FormPart]] = {}
    for part in multipart.parse(body, media.parameters.get("boundary", ""), most=most):
        columns.setdefault(_check_field(part.name), []).append(part)
    images = columns.get("image", [])
    if not 0 < len(images) <= bounds.batch_images:
        raise Problem(422, f"{len(images)} parts 'image'; a batch has 1 to {bounds.batch_images}")
    for name, parts in columns.items():
        if len(parts) != len(images):
            raise Problem(422, f"{len(parts)} parts '{name}' for {len(images)} images; give one for each")
    rows = zip(*columns.values(), strict=True)
    return [Upload(image.filename, {p.name: p.data for p in row}) for image, row in zip(images, rows, strict=True)]


def _by_name(parts: Sequence[multipart.FormPart]) -> dict[str, bytes]:
    files = {_check_field(part.name): part.data for part in parts}
    if len(files) < len(parts):
        raise Problem(400, "multipart: a part is given twice; several images go to /v1/depth:batch")
    return files


def _check_field(name: str) -> str:
    if name not in FIELDS:
        raise Problem(400, f"multipart: unknown part {name[:40]!r}; known are {', '.join(FIELDS)}")
    return name


def _check_kind(body: bytes, kind: str) -> None:
    """A Problem (415) unless a raw body is of the kind that its Content-Type declares."""
    actual = next((name for start, name in _STARTS.items() if body.startswith(start)), None)
    if kind not in _UNDECLARED and kind not in _RAW:
        raise Problem(415, f"Content-Type '{kind[:60]}' is not supported; send JPEG, PNG, WebP, {_FORM} or {_NPZ[0]}")
    if kind in _RAW and actual is not None and actual != _RAW[kind]:
        raise Problem(415, f"Content-Type says {kind}, but the body is {actual}")


def _read_npz(body: bytes, bounds: RequestLimits) -> InputImage:
    allowed = image_limits(bounds)
    # 3 + 3 bytes of colour and up to 8 of each map: the most that inputs of the largest image can need.
    stored = arrays.npz(body, names=FIELDS, most_bytes=bounds.pixels * 30)
    if "image" not in stored:
        raise Problem(422, "npz: there is no array 'image'")
    for key, array in stored.items():
        # The limits of images, which for files are checked by their headers.
        photos.check_size(array.shape[1], array.shape[0], where=key, limits=allowed)
    inputs = {key: (_check_colour if key in COLOURS else _decode_map)(key, array) for key, array in stored.items()}
    image = inputs.pop("image")
    return _check_sizes(InputImage(image, inputs))


def _check_colour(key: str, array: NDArray[Any]) -> Rgb:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{key}: expected (H,W,3) uint8 RGB, not {array.dtype} of shape {array.shape}")
    return array


def _read_other(key: str, data: bytes, allowed: photos.PhotoLimits) -> NDArray[Any]:
    """A file of a further input -> (H,W,3) colours or (H,W) metres or ids."""
    if key == "background":
        return photos.decode(data, where=key, limits=allowed)
    if not data.startswith(arrays.NPY):
        return _decode_map(key, photos.decode_map(data, where=key, limits=allowed))
    array = arrays.npy(data, where=key)
    photos.check_size(array.shape[1], array.shape[0], where=key, limits=allowed)
    return _decode_map(key, array)


def _decode_map(key: str, array: NDArray[Any]) -> NDArray[Any]:
    """(H,W) numbers as stored -> float32 metres of sparse depth, int32 ids of the others."""
    if array.ndim != 2:
        raise DataError(f"{key}: expected (H,W) numbers, not shape {array.shape}")
    if key == "sparse":
        return encodings.decode(array, "float_m" if array.dtype.kind == "f" else "uint16_mm", where=key)
    if array.dtype.kind not in "iub":
        raise DataError(f"{key}: expected integers, not {array.dtype}")
    # Smaller types cannot leave the range of int32.
    if array.dtype.itemsize >= 4 and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise DataError(f"{key}: ids are 0 to {np.iinfo(np.int32).max}")
    return array.astype(np.int32)


def _check_sizes(image: InputImage) -> InputImage:
    height, width = image.rgb.shape[:2]
    for key, values in image.others.items():
        if values.shape[:2] != (height, width):
            size = f"{values.shape[1]}x{values.shape[0]}"
            raise Problem(422, f"{key} is {size} but the image is {width}x{height} when upright; give equal sizes")
    return image


def write(maps: Mapping[str, Map], rgb: Rgb, options: Options, *, points: int) -> Encoded:
    """Maps (h,w) of an image (H,W,3) -> bytes of the requested format; a point cloud has at most so many `points`."""
    if options.form == "npz":
        return _npz(maps, options)
    plane = _plane(maps, options)
    if "depth" in maps and not options.keep_invalid:
        maps = {**maps, "depth": export.valid_only(maps["depth"], maps.get("valid"))}
    if options.form in ("ply", "glb"):
        if plane != "depth":
            raise Problem(422, f"format={options.form}: a point cloud needs depth, but plane={plane} has none")
        depth = export.confident(maps["depth"], maps.get("confidence"), options.min_confidence)
        return _cloud(depth, rgb, options, points=points, confidence=maps.get("confidence"))
    values = maps[plane]
    if options.form == "npy":
        unit = {"X-Depth-Unit": "m", "X-Depth-Scale": "1"} if plane in METRIC else {}
        return Encoded(npy(values.astype(options.dtype)), options.media, {**unit, "X-Plane": plane})
    if options.form == "colour":
        return _coloured(values, plane, options)
    return _metres_png(values, plane, options) if plane in METRIC else _share_png(values, plane)


def _plane(maps: Mapping[str, Map], options: Options) -> str:
    """The map that is asked for; a Problem where there is none."""
    plane = options.plane or ("depth" if "depth" in maps else "mask")
    if plane not in maps:
        raise Problem(422, f"plane={plane}: this model predicts {', '.join(maps)}")
    if options.min_confidence > 0 and "confidence" not in maps:
        raise Problem(422, f"min_confidence={options.min_confidence:g}: this model predicts no confidence")
    return plane


def _metres_png(depth: Map, plane: str, options: Options) -> Encoded:
    """(h,w) metres -> 16-bit PNG; 0 is invalid, and depths too large for 16 bits are 65535."""
    # `millimetres` counts 1000 steps a metre, hence the factor for other scales.
    stored = export.millimetres(depth if options.scale == 1000 else depth * np.float32(options.scale / 1000))
    unit = {"X-Depth-Unit": SCALES[str(options.scale)], "X-Depth-Scale": f"{1 / options.scale:.9g}"}
    return Encoded(rasters.encode_png(stored), "image/png", {**unit, "X-Plane": plane})


def _share_png(values: Map, plane: str) -> Encoded:
    """(h,w) probability -> 8-bit PNG, 255 = 1; of a mask 255 where it is above one half."""
    likely = values >= export.LIKELY if plane == "valid" else values > 0.5
    shown = rasters.levels(values) if plane == "confidence" else likely.astype(np.uint8) * 255
    return Encoded(rasters.encode_png(shown), "image/png", {"X-Plane": plane})


def npy(values: NDArray[Any]) -> bytes:
    """An array -> the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _npz(maps: Mapping[str, Map], options: Options) -> Encoded:
    """All maps, uncompressed: depth hardly shrinks, and deflating takes longer than the network."""
    file = io.BytesIO()
    stored: dict[str, Any] = {key: values.astype(options.dtype) for key, values in maps.items()}
    np.savez(file, allow_pickle=False, **stored)
    return Encoded(file.getvalue(), options.media, {"X-Depth-Unit": "m", "X-Depth-Scale": "1"})


def _coloured(values: Map, plane: str, options: Options) -> Encoded:
    painted, (near, far) = rasters.paint_depth(values, options) if plane in METRIC else rasters.paint_mask(values)
    if options.media == "image/webp" and max(values.shape) > _LARGEST_WEBP:
        raise Problem(406, f"a WebP image has at most {_LARGEST_WEBP} pixels a side; accept image/png or image/jpeg")
    if options.media == "image/png":
        data = rasters.encode_png(painted)
    else:
        data = _encode_lossy(*_QUALITIES[options.media], cv2.cvtColor(painted, cv2.COLOR_RGB2BGR))
    return Encoded(data, options.media, {"X-Plane": plane, "X-Depth-Range": f"{near:g},{far:g}"})


def _cloud(depth: Map, rgb: Rgb, options: Options, *, points: int, confidence: Map | None) -> Encoded:
    view = options.view(*rgb.shape[:2])
    camera = _scale_camera(view, rgb, depth.shape)
    colours = resize_colour(rgb, (depth.shape[0], depth.shape[1]))
    stride = 1  # a regular grid keeps the surface even, which a random choice of points would not
    while -(-depth.shape[0] // stride) * -(-depth.shape[1] // stride) > points:
        stride += 1
    thinned = np.zeros_like(depth)  # 0 is unmeasured: such pixels become no points
    thinned[::stride, ::stride] = depth[::stride, ::stride]
    # Points of glTF are as opaque as they are sure.
    encode = export.encode_ply if options.form == "ply" else partial(export.encode_glb, confidence=confidence)
    note = f"camera ASSUMED, {view.origin.removeprefix('assumed ')}" if view.is_assumed else ""
    headers = {"X-Depth-Unit": "m", "X-Depth-Scale": "1", "X-Intrinsics": view.origin}
    if stride > 1:
        headers["X-Points-Stride"] = str(stride)
    return Encoded(encode(thinned, colours, camera=camera, note=note), options.media, headers)


def _scale_camera(view: CameraView, rgb: Rgb, shape: tuple[int, ...]) -> Camera:
    """The camera of the image in the pixels of the map."""
    return view.camera.scaled(shape[0] / rgb.shape[0], shape[1] / rgb.shape[1])


def _encode_lossy(suffix: str, quality: Sequence[int], pixels: NDArray[Any]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, quality)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {suffix} of shape {pixels.shape}")
    return data.tobytes()
