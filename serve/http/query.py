"""The query string and the Accept header of a request -> Options. Pure, and strict.

An unknown parameter is refused rather than ignored: a misspelt `fov` would silently give points with an assumed camera.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from depthray.errors import UsageError, did_you_mean
from depthray.imaging import distortion
from depthray.imaging.camera import Camera, assumed_camera
from serve.http.problems import Problem

Format = Literal["png", "npy", "npz", "colour", "ply", "glb"]

MEDIA: dict[str, Format] = {  # in order of preference
    "image/png": "png",
    "application/x-npy": "npy",
    "application/x-npz": "npz",
    "image/webp": "colour",
    "image/jpeg": "colour",
    "model/gltf-binary": "glb",
    "application/x-ply": "ply",
}
MEDIA_OF: dict[Format, str] = {form: media for media, form in reversed(MEDIA.items())} | {"colour": "image/png"}
COLOURED = ("image/png", "image/webp", "image/jpeg")
CMAPS = ("turbo", "magma", "inferno", "viridis", "gray")
SCALES = {"1000": "mm", "256": "1/256 m", "5000": "1/5000 m"}  # steps of a 16-bit PNG per metre
CHOICES: dict[str, Sequence[str]] = {
    "format": tuple(MEDIA_OF),
    "cmap": CMAPS,
    "size": ("image", "model"),
    "plane": ("depth", "mask", "confidence", "sigma", "valid"),
    "scale": tuple(SCALES),
    "dtype": ("float32", "float16"),
    "keep_invalid": ("false", "true"),
    "camera_model": tuple(distortion.COUNTS),
}
RANGES = {  # of numeric parameters, both ends included
    "vmin": (0.0, 1000.0),
    "vmax": (0.0, 1000.0),
    "fx": (1.0, 1e6),
    "fy": (1.0, 1e6),
    "cx": (-1e6, 1e6),
    "cy": (-1e6, 1e6),
    "fov": (1.0, 170.0),
    "min_confidence": (0.0, 1.0),
}
DISTORTION = "distortion"  # a parameter of several numbers
PARAMETERS = (*CHOICES, *RANGES, DISTORTION)
ASSUMED_FOV = 60.0
_NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?", re.ASCII)
_MAX_ACCEPT_RANGES = 32


class CameraView(NamedTuple):
    """The camera of an answer, and whether the client gave it or it is assumed."""

    camera: Camera
    origin: str  # as in the header X-Intrinsics

    @property
    def is_assumed(self) -> bool:
        """Whether the client gave no camera."""
        return self.origin.startswith("assumed")


@dataclass(frozen=True)
class Options:
    """The requested form of an answer."""

    form: Format = "png"
    media: str = "image/png"
    cmap: str = "turbo"
    near: float | None = None  # metres at the ends of the colour map; None: by the range of the answer itself
    far: float | None = None
    native: bool = False  # the network's own pixels instead of the image's
    plane: Literal["depth", "mask", "confidence", "sigma", "valid"] | None = (
        None  # None: depth if the network predicts it
    )
    scale: int = 1000  # steps of a 16-bit PNG per metre
    dtype: Literal["float32", "float16"] = "float32"
    intrinsics: tuple[float, float, float | None, float | None] | None = None
    fov: float | None = None
    lens: tuple[str, tuple[float, ...]] | None = None  # model and coefficients of the distortion
    min_confidence: float = 0.0  # of the pixels that become points
    keep_invalid: bool = False  # depth where the network says that there is none

    def view(self, height: int, width: int) -> CameraView:
        """The camera of an image of (H,W) pixels."""
        if self.intrinsics is not None:
            fx, fy, cx, cy = self.intrinsics
            camera = Camera(fx, fy, (width - 1) / 2 if cx is None else cx, (height - 1) / 2 if cy is None else cy)
            origin = "given " + " ".join(f"{name}={value:g}" for name, value in camera._asdict().items())
            if self.lens is None:
                return CameraView(camera, origin)
            model, numbers = self.lens
            coefficients = ",".join(f"{number:g}" for number in numbers)
            bent = distortion.DistortedCamera.of(camera, model, numbers)
            return CameraView(bent, f"{origin} {DISTORTION}={coefficients} camera_model={model}")
        origin = f"given fov={self.fov:g}" if self.fov else f"assumed fov={ASSUMED_FOV:g}"
        return CameraView(assumed_camera(height, width, degrees=self.fov or ASSUMED_FOV), origin)


def parse(query: Sequence[tuple[str, str]], accept: str | None) -> Options:
    """The pairs of a query string and the Accept header -> the options, or a Problem."""
    texts = dict(query)
    for name in texts:
        if name not in PARAMETERS:
            raise Problem(400, f"unknown parameter '{_printable(name)}'{did_you_mean(name[:40], PARAMETERS)}")
    if len(texts) < len(query):
        raise Problem(400, "a parameter is given twice")
    chosen = {name: _read_choice(name, texts[name]) for name in CHOICES if name in texts}
    numbers = {name: _read_number(name, texts[name]) for name in RANGES if name in texts}
    form, media = _negotiate(chosen.get("format"), accept)
    _check_range(numbers)
    return Options(
        form,
        media,
        cmap=chosen.get("cmap", "turbo"),
        near=numbers.get("vmin"),
        far=numbers.get("vmax"),
        native=chosen.get("size") == "model",
        plane=chosen.get("plane"),  # type: ignore[arg-type]  # one of CHOICES
        scale=int(chosen.get("scale", "1000")),
        dtype=chosen.get("dtype", "float32"),  # type: ignore[arg-type]
        intrinsics=_intrinsics(numbers),
        fov=numbers.get("fov"),
        lens=_lens(texts.get(DISTORTION), chosen.get("camera_model"), numbers),
        min_confidence=numbers.get("min_confidence", 0.0),
        keep_invalid=chosen.get("keep_invalid") == "true",
    )


def _read_choice(name: str, text: str) -> str:
    if text not in CHOICES[name]:
        raise Problem(400, f"{name}={_printable(text)}: choose from {', '.join(CHOICES[name])}")
    return text


def _read_number(name: str, text: str) -> float:
    # float() alone would take nan, inf, 1_000 and digits of other scripts.
    if not _NUMBER.fullmatch(text):
        raise Problem(400, f"{name}={_printable(text)}: give a number")
    low, high = RANGES[name]
    if not low <= float(text) <= high:
        raise Problem(422, f"{name}={_printable(text)}: give a number from {low:g} to {high:g}")
    return float(text)


def _check_range(numbers: dict[str, float]) -> None:
    if "vmin" in numbers and "vmax" in numbers and numbers["vmin"] >= numbers["vmax"]:
        raise Problem(422, "vmin must be less than vmax")


def _intrinsics(numbers: dict[str, float]) -> tuple[float, float, float | None, float | None] | None:
    if "fx" not in numbers:
        stray = [name for name in ("fy", "cx", "cy") if name in numbers]
        if stray:
            raise Problem(422, f"{stray[0]} needs fx too")
        return None
    if "fov" in numbers:
        raise Problem(422, "give either fov or fx, not both")
    return numbers["fx"], numbers.get("fy", numbers["fx"]), numbers.get("cx"), numbers.get("cy")


def _lens(text: str | None, model: str | None, numbers: dict[str, float]) -> tuple[str, tuple[float, ...]] | None:
    """The model and coefficients of the lens, checked."""
    if text is None:
        if model is not None:
            raise Problem(422, f"camera_model={model} needs {DISTORTION} too")
        return None
    if "fx" not in numbers:
        raise Problem(422, f"{DISTORTION} needs fx too")
    parts = text.split(",")
    if len(parts) > 8 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise Problem(400, f"{DISTORTION}={_printable(text)}: give numbers, such as k1,k2,p1,p2,k3")
    lens = model or distortion.BROWN, tuple(map(float, parts))
    try:
        distortion.DistortedCamera.of(Camera(1, 1, 0, 0), *lens)
    except UsageError as error:
        raise Problem(422, str(error)) from None
    return lens


def _negotiate(form: str | None, accept: str | None) -> tuple[Format, str]:
    """The format requested by name, else the first of MEDIA that Accept prefers; and its media type."""
    accepted = list(_media_ranges(accept or "*/*")) or [("*/*", 1.0)]
    if form is not None:
        # A format has one media type, except `colour`, for which Accept chooses between image formats.
        coloured = [media for media in COLOURED if form == "colour"]
        best = max(coloured, key=lambda media: _quality(media, accepted), default="")
        return form, best or MEDIA_OF[form]  # type: ignore[index, return-value]
    best = max(MEDIA, key=lambda media: _quality(media, accepted))
    if _quality(best, accepted) <= 0:
        raise Problem(406, f"an answer can be {', '.join(MEDIA)}; or name one by ?format=")
    return MEDIA[best], best


def _media_ranges(accept: str) -> Iterator[tuple[str, float]]:
    """`image/*;q=0.5, ...` -> media ranges with their quality (RFC 9110, section 12.5.1)."""
    for piece in accept[:4096].split(",")[:_MAX_ACCEPT_RANGES]:
        kind, *parameters = (part.strip().lower() for part in piece.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if "/" in kind and re.fullmatch(r"[01](\.\d{0,3})?", quality, re.ASCII):
            yield kind, min(float(quality), 1.0)


def _quality(media: str, accepted: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that contains the media type."""
    family = media.partition("/")[0] + "/*"
    for kind in (media, family, "*/*"):
        qualities = [quality for name, quality in accepted if name == kind]
        if qualities:
            return max(qualities)
    return 0.0


def _printable(text: str) -> str:
    """A client's own text as it may be repeated in an answer: short, and printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:40])
