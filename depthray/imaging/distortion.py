"""Cameras whose lens bends straight lines: where their pixels look, for point clouds of images as they were taken.

The formulas are those of OpenCV's documentation (modules calib3d and fisheye; D. C. Brown 1966 and J. Kannala and
S. Brandt 2006). A pinhole camera sees the direction (x, y, 1) at fx x + cx, fy y + cy, and with r^2 = x^2 + y^2

    brown-conrady   x' = x R + 2 p1 x y + p2 (r^2 + 2 x^2),  y' = y R + p1 (r^2 + 2 y^2) + 2 p2 x y, with
                    R = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6); k1,k2,p1,p2[,k3[,k4,k5,k6]]
    fisheye         x' = x T / r, y' = y T / r, with the angle t = atan(r) and
                    T = t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8); k1,k2,k3,k4

are seen in place of x and y. librealsense's inverse-brown-conrady has the first polynomial the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError
from depthray.imaging.camera import Camera

Floats = NDArray[np.float64]

BROWN, FISHEYE, INVERSE = "brown-conrady", "fisheye", "inverse-brown-conrady"
MODELS = ("", BROWN, FISHEYE, INVERSE)  # as frames number them
COUNTS = {BROWN: (4, 5, 8), FISHEYE: (4,), INVERSE: (4, 5, 8)}  # of coefficients, by model
STEPS = 30  # of Newton's method; far fewer are needed but where a lens is almost at its fold
CLOSE = 1e-7  # in direction: less than a thousandth of a pixel


class DistortedCamera(Camera):
    """A camera in pixels whose lens distorts; as numbers it is its pinhole matrix."""

    model: str
    coefficients: tuple[float, ...]

    @staticmethod
    def of(camera: Camera, model: str, coefficients: Sequence[float]) -> DistortedCamera:
        """A pinhole camera with a lens. Raises UsageError for another model, or a wrong number of coefficients."""
        if model not in COUNTS:
            raise UsageError(f"camera model '{model}': give one of {', '.join(COUNTS)}")
        numbers = tuple(map(float, coefficients))
        if len(numbers) not in COUNTS[model] or not np.isfinite(numbers).all():
            counts = " or ".join(map(str, COUNTS[model]))
            raise UsageError(f"distortion of {model} is {counts} finite numbers, and {len(numbers)} are given")
        made = DistortedCamera(*camera)
        made.model, made.coefficients = model, numbers
        return made

    def rays(self, u: NDArray[Any], v: NDArray[Any]) -> tuple[Floats, Floats]:
        """(N,) columns and rows -> (N,) right and down of a metre ahead; NaN where no ray of the lens ends there"""
        x, y = super().rays(u, v)
        k = np.zeros(8)
        k[: len(self.coefficients)] = self.coefficients
        if self.model == INVERSE:
            return _brown(x, y, k)
        return _undo_fisheye(x, y, k) if self.model == FISHEYE else _undo_brown(x, y, k)

    def scaled(self, down: float, across: float) -> DistortedCamera:
        """The camera of the image with so many times its rows and columns; its lens is in units of directions."""
        return DistortedCamera.of(super().scaled(down, across), self.model, self.coefficients)


def as_numbers(model: str, coefficients: Sequence[float]) -> Floats:
    """A lens -> (9) as frames carry it: the place of its model in MODELS, and eight coefficients; all 0 without one"""
    numbers = np.zeros(9)
    numbers[0] = MODELS.index(model)
    numbers[1 : 1 + len(coefficients)] = coefficients
    return numbers


def camera_of(matrix: NDArray[Any], numbers: NDArray[Any] | None = None) -> Camera:
    """(3,3) and the lens of a frame, (9) or None -> its camera"""
    camera = Camera(*(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))
    if numbers is None or not numbers[0]:
        return camera
    model = MODELS[int(numbers[0])]
    return DistortedCamera.of(camera, model, numbers[1 : 1 + COUNTS[model][-1]].tolist())


def read_distortion(text: str, model: str, camera: Camera | None, *, flag: str = "--distortion") -> DistortedCamera:
    """Coefficients as text, `k1,k2,p1,p2,k3`, and their model -> the camera with them; else UsageError."""
    if camera is None:
        raise UsageError(f"{flag} is the lens of a camera that is known: give its fx,fy,cx,cy too (--intrinsics)")
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag}={text}: give numbers, such as k1,k2,p1,p2,k3") from None
    return DistortedCamera.of(camera, model, numbers)


def _brown(x: Floats, y: Floats, k: Floats) -> tuple[Floats, Floats]:
    """(N,) directions -> (N,) directions with the polynomial of k1,k2,p1,p2,k3,k4,k5,k6"""
    radial, _ = _radial(x * x + y * y, k)
    return (
        x * radial + 2 * k[2] * x * y + k[3] * (3 * x * x + y * y),
        y * radial + k[2] * (x * x + 3 * y * y) + 2 * k[3] * x * y,
    )


def _radial(s: Floats, k: Floats) -> tuple[Floats, Floats]:
    """(N,) r^2 -> (N,) the factor R, and its derivative by r^2"""
    above, below = (1 + s * (a + s * (b + s * c)) for a, b, c in ((k[0], k[1], k[4]), (k[5], k[6], k[7])))
    steep, less = (a + s * (2 * b + 3 * s * c) for a, b, c in ((k[0], k[1], k[4]), (k[5], k[6], k[7])))
    return above / below, (steep * below - above * less) / (below * below)


def _undo_brown(x: Floats, y: Floats, k: Floats) -> tuple[Floats, Floats]:
    """(N,) distorted directions -> (N,) those that the polynomial makes them of, by Newton's method"""
    a, b = x.copy(), y.copy()
    with np.errstate(all="ignore"):  # what does not converge is NaN at the end
        for _ in range(STEPS):
            seen = _brown(a, b, k)
            dx, dy = seen[0] - x, seen[1] - y
            if max(np.nanmax(np.abs(dx), initial=0), np.nanmax(np.abs(dy), initial=0)) < CLOSE / 10:
                break
            xx, xy, yy = _slopes(a, b, k)
            size = xx * yy - xy * xy
            a, b = a - (yy * dx - xy * dy) / size, b - (xx * dy - xy * dx) / size
        seen, (xx, xy, yy) = _brown(a, b, k), _slopes(a, b, k)
        # Beyond its fold a polynomial comes back to pixels that other rays have.
        found = (np.hypot(seen[0] - x, seen[1] - y) < CLOSE) & (xx * yy - xy * xy > 0) & (xx > 0)
    return np.where(found, a, np.nan), np.where(found, b, np.nan)


def _slopes(x: Floats, y: Floats, k: Floats) -> tuple[Floats, Floats, Floats]:
    """(N,) directions -> (N,) derivatives of the polynomial: of x by x, of x by y and of y by x, of y by y"""
    radial, steep = _radial(x * x + y * y, k)
    return (
        radial + 2 * x * x * steep + 2 * k[2] * y + 6 * k[3] * x,
        2 * x * y * steep + 2 * k[2] * x + 2 * k[3] * y,
        radial + 2 * y * y * steep + 6 * k[2] * y + 2 * k[3] * x,
    )


def _undo_fisheye(x: Floats, y: Floats, k: Floats) -> tuple[Floats, Floats]:
    """(N,) distorted directions -> (N,) those that a fisheye lens makes them of, up to 90 degrees from its axis"""
    seen = np.hypot(x, y)
    powers = np.array([1.0, k[0], k[1], k[2], k[3]])
    angle = np.minimum(seen, np.pi / 2)
    with np.errstate(all="ignore"):
        for _ in range(STEPS):
            s = angle * angle
            off = angle * np.polynomial.polynomial.polyval(s, powers) - seen
            if np.nanmax(np.abs(off), initial=0) < CLOSE / 10:
                break
            angle = angle - off / np.polynomial.polynomial.polyval(s, powers * [1, 3, 5, 7, 9])
        s = angle * angle
        off = angle * np.polynomial.polynomial.polyval(s, powers) - seen
        rises = np.polynomial.polynomial.polyval(s, powers * [1, 3, 5, 7, 9]) > 0
        found = (np.abs(off) < CLOSE) & rises & (angle >= 0) & (angle < np.pi / 2)
        # In the middle both are 0, and their ratio is 1.
        stretch = np.where(seen > 0, np.tan(angle) / np.where(seen > 0, seen, 1), 1.0)
    return np.where(found, x * stretch, np.nan), np.where(found, y * stretch, np.nan)
