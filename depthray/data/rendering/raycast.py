"""The first solid on the ray of every pixel: depth along the optical axis, and the face that was hit.

Rays are not normalised: their component along the optical axis is 1, so the parameter at a hit is the depth itself.
World: right-handed, y up, metres. Camera: x right, y down, z forward. Pixel centres are at whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BOX, ELLIPSOID, CYLINDER = 0, 1, 2
FACES = 6  # faces of a solid: 2 * axis + (1 if the outward normal is +axis); a round surface is face 0
NEAREST = 0.05  # metres; anything nearer to the camera is not visible
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class RenderCamera(NamedTuple):
    """A pinhole: position, rotation (camera to world, columns right, down, forward), focal length and image size."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    focal: float
    centre: tuple[float, float]
    height: int
    width: int

    @property
    def x(self) -> Floats:
        """() -> (W,) slope of the rays to the right."""
        return ((np.arange(self.width) - self.centre[0]) / self.focal).astype(np.float32)

    @property
    def y(self) -> Floats:
        """() -> (H,) slope of the rays downwards."""
        return ((np.arange(self.height) - self.centre[1]) / self.focal).astype(np.float32)

    @property
    def intrinsics(self) -> Floats:
        """() -> (3,3) float32 pinhole matrix in pixels."""
        (cx, cy), f = self.centre, self.focal
        return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]], np.float32)


@dataclass(frozen=True)
class Solids:
    """P solids: boxes, ellipsoids and upright cylinders that fill the box `half` around `centre`, turned about y."""

    shape: NDArray[np.int32]  # (P,)
    centre: NDArray[np.float64]  # (P,3) metres
    half: NDArray[np.float64]  # (P,3) metres
    yaw: NDArray[np.float64]  # (P,) radians

    @property
    def to_local(self) -> NDArray[np.float64]:
        """() -> (P,3,3) rotation from world to solid."""
        c, s, turn = np.cos(self.yaw), np.sin(self.yaw), np.zeros((len(self.yaw), 3, 3))
        turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = c, -s, 1.0
        turn[:, 2, 0], turn[:, 2, 2] = s, c
        return turn


class Hits(NamedTuple):
    """The nearest hits of the rays of an image so far."""

    depth: Floats  # (H,W) metres along the optical axis
    face: NDArray[np.int32]  # (H,W) solid * FACES + face


class _Rays(NamedTuple):
    """Rays of a tile in the frame of one solid, scaled so that it fills [-1,1]^3."""

    origin: Sequence[float]
    along: tuple[Floats, Floats, Floats]  # (h,w) each


def cast_walls(camera: RenderCamera, room: Solids) -> Hits:
    """Camera in a box -> (H,W) depth in metres and face of its walls, seen from inside"""
    turned, origins = _frame(camera, room)
    rays = _rays(turned[0], origins[0], x=camera.x[None], y=camera.y[:, None])
    fars = [_slab(o, d)[1] for o, d in zip(rays.origin, rays.along, strict=True)]
    depth = np.minimum(np.minimum(fars[0], fars[1]), fars[2])
    axis = np.where(depth == fars[0], 0, np.where(depth == fars[1], 1, 2))
    # Seen from inside, a ray ends at the face that its direction points to.
    along = np.choose(axis, rays.along)
    return Hits(depth, (2 * axis + (along > 0)).astype(np.int32))


def cast_solids(camera: RenderCamera, solids: Solids, *, hits: Hits, first: int) -> None:
    """Write solids, numbered from `first` on, into the (H,W) hits wherever they are nearer."""
    tiles, nearest = _tiles(camera, solids)
    turned, origins = _frame(camera, solids)
    x, y, order = camera.x[None], camera.y[:, None], np.argsort(nearest, kind="stable")
    shown = (tiles[:, 1] > tiles[:, 0]) & (tiles[:, 3] > tiles[:, 2])
    # Front to back, so that hidden solids are skipped without casting a ray.
    for number in order[shown[order]].tolist():
        top, bottom, left, right = tiles[number].tolist()
        window = Hits(hits.depth[top:bottom, left:right], hits.face[top:bottom, left:right])
        if window.depth.max() > nearest[number]:  # else it is completely occluded
            rays = _rays(turned[number], origins[number], x=x[:, left:right], y=y[top:bottom])
            _INTERSECT[solids.shape[number]](rays, window, face=(first + number) * FACES)


def _intersect_box(rays: _Rays, window: Hits, *, face: int) -> None:
    (near_x, far_x), (near_y, far_y), (near_z, far_z) = map(_slab, rays.origin, rays.along)
    near = np.maximum(np.maximum(near_x, near_y), near_z)
    hit = _nearer(near, np.minimum(np.minimum(far_x, far_y), far_z), window=window)
    if hit.any():
        x, y, z = rays.along
        code = np.where(near == near_x, (x < 0) + 0, np.where(near == near_y, (y < 0) + 2, (z < 0) + 4))
        _put(window, hit, near=near, face=code + face)


def _intersect_ellipsoid(rays: _Rays, window: Hits, *, face: int) -> None:
    near, far = _round(rays.origin, rays.along)
    hit = _nearer(near, far, window=window)
    if hit.any():
        _put(window, hit, near=near, face=face)


def _intersect_cylinder(rays: _Rays, window: Hits, *, face: int) -> None:
    side, far_side = _round(rays.origin[::2], rays.along[::2])
    cap, far_cap = _slab(rays.origin[1], rays.along[1])
    near = np.maximum(side, cap)
    hit = _nearer(near, np.minimum(far_side, far_cap), window=window)
    if hit.any():
        _put(window, hit, near=near, face=np.where(cap > side, (rays.along[1] < 0) + 2, 0) + face)


_INTERSECT = {BOX: _intersect_box, ELLIPSOID: _intersect_ellipsoid, CYLINDER: _intersect_cylinder}


def _slab(origin: float, along: Floats) -> tuple[Floats, Floats]:
    """(h,w) ray components -> (h,w) parameters at which the rays enter and leave [-1,1] of this axis."""
    inverse = 1.0 / (along + np.float32(1e-12))  # a ray along the slab must not divide by zero
    middle, reach = inverse * np.float32(-origin), np.abs(inverse)
    return middle - reach, middle + reach


def _round(origin: Sequence[float], along: Sequence[Floats]) -> tuple[Floats, Floats]:
    """(h,w) ray components -> (h,w) parameters at which rays enter and leave the unit circle or sphere; NaN: never"""
    a, b = np.zeros_like(along[0]), np.zeros_like(along[0])
    for o, d in zip(origin, along, strict=True):
        a += d * d
        b += np.float32(o) * d
    c = sum(o * o for o in origin) - 1
    with np.errstate(invalid="ignore"):  # NaN where a ray misses; comparisons with NaN are False, so it is no hit
        root = np.sqrt(b * b - a * np.float32(c))
    return (-b - root) / a, (root - b) / a


def _nearer(near: Floats, far: Floats, *, window: Hits) -> NDArray[np.bool_]:
    """(h,w) entry and exit in metres -> (h,w) whether a ray hits here in front of everything before"""
    return (near < far) & (near > NEAREST) & (near < window.depth)


def _put(window: Hits, hit: NDArray[np.bool_], *, near: Floats, face: NDArray[np.int64] | int) -> None:
    np.copyto(window.depth, near, where=hit)
    np.copyto(window.face, face, where=hit, casting="same_kind")


def _frame(camera: RenderCamera, solids: Solids) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P solids -> (P,3,3) camera to scaled solid, (P,3) camera position in the scaled solid."""
    to_local = solids.to_local
    origins = np.einsum("pij,pj->pi", to_local, camera.position - solids.centre) / solids.half
    return to_local @ camera.rotation / solids.half[:, :, None], origins


def _rays(turned: NDArray[np.float64], origin: NDArray[np.float64], *, x: Floats, y: Floats) -> _Rays:
    """(1,w) and (h,1) slopes of the rays of a tile -> those rays in the frame of one solid."""
    matrix = turned.astype(np.float32)
    first, second, third = (row[0] * x + (row[1] * y + row[2]) for row in matrix)
    return _Rays(origin.tolist(), (first, second, third))


def _tiles(camera: RenderCamera, solids: Solids) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """P solids -> (P,4) top, bottom, left, right of the pixels that can show them, (P,) least depth in metres"""
    x, y, z = np.moveaxis((_corners(solids) - camera.position) @ camera.rotation, -1, 0)
    depth = np.maximum(z, NEAREST)
    column, row = x / depth * camera.focal + camera.centre[0], y / depth * camera.focal + camera.centre[1]
    cut = (z < NEAREST).any(axis=1)  # partly behind the camera: projected corners are no bounds then
    ends = np.stack([row.min(1), row.max(1) + 1, column.min(1), column.max(1) + 1], axis=1)
    ends[cut] = 0, camera.height, 0, camera.width
    ends[(z < NEAREST).all(axis=1)] = 0
    ends = np.clip(ends, 0, [camera.height, camera.height, camera.width, camera.width])
    ends[:, ::2], ends[:, 1::2] = np.floor(ends[:, ::2]), np.ceil(ends[:, 1::2])
    return ends.astype(np.int64), z.min(axis=1)


def _corners(solids: Solids) -> NDArray[np.float64]:
    """P solids -> (P,8,3) corners in the world."""
    local = _CORNERS[None] * solids.half[:, None]
    return np.asarray(local @ solids.to_local + solids.centre[:, None])
