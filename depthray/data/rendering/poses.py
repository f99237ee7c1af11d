"""The cameras in a room, and the foreground object in front of each. A pure function of (seed, room, pose)."""

from __future__ import annotations

from functools import lru_cache
from math import atan2, cos, hypot, pi, sin, tan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.rendering import furniture
from depthray.data.rendering.furniture import Rng
from depthray.data.rendering.raycast import RenderCamera, Solids
from depthray.data.rendering.rooms import KEPT, Content, Placed, Room, assemble, build

Floats = NDArray[np.float64]

_HEIGHTS = ((1.3, 1.7, -0.2), (0.8, 1.3, -0.12), (0.35, 0.8, 0.0))  # lowest, highest, mean pitch: human, child, robot
_FOREGROUNDS = (furniture.person, furniture.person, furniture.person, furniture.crates, furniture.sphere)
_SALT_POSE, _SALT_FOREGROUND = 101, 102  # independent draws for each purpose
_NEAR, _FAR = 0.6, 3.0  # metres: something nearer makes a view worse, and distance beyond makes it no better
_PROBES = np.array([(x, y, 1.0) for x in (-0.55, -0.28, 0.0, 0.28, 0.55) for y in (-0.4, -0.13, 0.13, 0.4)])


class CameraPose(NamedTuple):
    """A camera without pixels: position, rotation (camera to world), focal length in widths, shift of its centre."""

    position: Floats
    rotation: Floats
    focal: float
    shift: tuple[float, float]  # in widths and heights

    def camera(self, *, height: int, width: int) -> RenderCamera:
        """The pinhole of an image of this size."""
        x, y = (self.shift[0] + 0.5) * width - 0.5, (self.shift[1] + 0.5) * height - 0.5
        return RenderCamera(self.position, self.rotation, self.focal * width, (x, y), height, width)


@lru_cache(maxsize=4 * KEPT)
def camera_pose(seed: int, number: int, pose: int) -> CameraPose:
    """A pose in the room, at a human's, a child's or a robot's height."""
    room, rng = build(seed, number), np.random.default_rng([seed, number, _SALT_POSE, pose])
    # One direction a room, from which its poses turn by a quarter each.
    base = np.random.default_rng([seed, number, _SALT_POSE]).uniform(0, 2 * pi)
    position, rotation = _stand(rng, room, towards=base + pose * pi / 2)
    focal = 0.5 / tan(rng.uniform(52, 72) / 360 * pi)
    return CameraPose(position, rotation, focal, (rng.normal(0, 0.01), rng.normal(0, 0.01)))


@lru_cache(maxsize=4 * KEPT)
def foreground(seed: int, number: int, pose: int) -> Content:
    """The foreground object of this pose: a person, some crates or a ball, standing on free floor in view."""
    room, rng = build(seed, number), np.random.default_rng([seed, number, _SALT_FOREGROUND, pose])
    thing = _FOREGROUNDS[int(rng.integers(len(_FOREGROUNDS)))](rng)
    # At a fixed size, so that the object stands at the same spot whatever the size of the image.
    eye = camera_pose(seed, number, pose).camera(height=240, width=320)
    spots = _in_view(rng, eye)
    reach = 0.5 * max(thing.floor)
    tall = max(part.at[1] + part.size[1] for part in thing.parts)
    free = _clearance(spots, room) > reach
    visible = _count_visible(eye, room.content.solids, spots=spots, heights=np.array([0.3, 0.6, 0.9]) * tall)
    x, z = spots[np.argmax(4 * _within(spots, room, margin=reach) + 2 * free + visible)]
    yaw = atan2(eye.position[0] - x, eye.position[2] - z) + rng.normal(0, 0.7)
    last = int(room.content.instances.max())
    return assemble([Placed(thing, float(x), 0.0, float(z), yaw)], first_instance=last + 1)


def _stand(rng: Rng, room: Room, *, towards: float) -> tuple[Floats, Floats]:
    """Position and rotation of the camera: of several candidates one with a good view, roughly in this direction."""
    count = 16
    low, high, tilt = _HEIGHTS[rng.choice(3, p=(0.5, 0.3, 0.2))]
    half, pitch, roll = np.array(room.half), rng.normal(tilt, 0.09), rng.normal(0, 0.02)
    spots = rng.uniform(-1, 1, (3 * count, 2)) * (half - 0.25)  # a quarter of a metre from the walls
    # Three times as many as needed, of which the ones with the most free floor are kept; half a metre is enough.
    spots = spots[np.argsort(-np.minimum(_clearance(spots, room), 0.5), kind="stable")[:count]]
    ways = rng.uniform(-0.5, 0.5, (count, 2)) * half - spots
    positions = np.insert(spots, 1, rng.uniform(low, high), axis=1)
    turns = np.stack([_turn(atan2(-dx, -dz), pitch, roll=roll) for dx, dz in ways])
    rays = np.einsum("cij,rj->cri", turns, _PROBES)
    depth = _reach(positions.repeat(len(_PROBES), axis=0), rays.reshape(-1, 3), room=room).reshape(count, -1)
    worth = np.minimum(depth, _FAR).mean(axis=1) - 4 * (depth < _NEAR).mean(axis=1)
    along = np.cos(np.arctan2(ways[:, 0], ways[:, 1]) - towards)  # so that the poses of a room differ
    best = int(np.argmax(worth + 0.7 * along + rng.uniform(0, 0.8, count)))
    return positions[best], turns[best]


def _in_view(rng: Rng, eye: RenderCamera) -> Floats:
    """-> (48,2) x and z in metres of random points on the floor ahead of the camera"""
    ahead = atan2(eye.rotation[0, 2], eye.rotation[2, 2])
    far, aside = rng.uniform(1.2, 4.0, 48), ahead + rng.uniform(-0.42, 0.42, 48)
    return np.stack([eye.position[0] + far * np.sin(aside), eye.position[2] + far * np.cos(aside)], axis=1)


def _clearance(spots: Floats, room: Room) -> Floats:
    """(n,2) x and z -> (n,) metres to the nearest furniture."""
    low, high = room.standing[None, :, :2], room.standing[None, :, 2:]
    off = np.maximum(np.maximum(low - spots[:, None], spots[:, None] - high), 0.0)
    return np.asarray(np.hypot(off[..., 0], off[..., 1]).min(axis=1, initial=hypot(*room.half)))


def _within(spots: Floats, room: Room, *, margin: float) -> NDArray[np.bool_]:
    """(n,2) x and z -> (n,) whether at least `margin` metres from all walls"""
    return np.asarray((np.abs(spots) < np.array(room.half) - margin).all(axis=1))


def _count_visible(eye: RenderCamera, solids: Solids, *, spots: Floats, heights: Floats) -> NDArray[np.int64]:
    """(n,2) spots, k heights -> (n,) how many of these points are in the image and not occluded."""
    points = np.empty((len(spots), len(heights), 3))
    points[..., 0], points[..., 1], points[..., 2] = spots[:, :1], heights, spots[:, 1:]
    rays = (points - eye.position).reshape(-1, 3)
    x, y, z = (rays @ eye.rotation).T
    depth = np.maximum(z, 0.3)
    column, row = x / depth * eye.focal + eye.centre[0], y / depth * eye.focal + eye.centre[1]
    framed = (z > 0.3) & (column > 0) & (column < eye.width) & (row > 0) & (row < eye.height)
    clear = _first_hit(np.broadcast_to(eye.position, rays.shape), rays, solids=solids) > 1
    return np.asarray((framed & clear).reshape(len(spots), -1).sum(axis=1))


def _reach(origins: Floats, rays: Floats, *, room: Room) -> Floats:
    """(n,3) origins and rays -> (n,) parameter at which each meets furniture or a wall"""
    (a, b), h = room.half, room.height
    walls = (np.where(rays > 0, (a, h, b), (-a, 0, -b)) - origins) / (rays + 1e-9)
    return np.asarray(np.minimum(walls.min(axis=1), _first_hit(origins, rays, solids=room.content.solids)))


def _first_hit(origins: Floats, rays: Floats, *, solids: Solids) -> Floats:
    """(n,3) origins and rays -> (n,) parameter at which each first meets the box around a solid; inf: never"""
    # Boxes instead of the exact solids, in float32: candidates are only ranked by it, never rendered.
    scaled = (solids.to_local / solids.half[:, :, None]).astype(np.float32)  # (P,3,3)
    offset = np.einsum("pij,pj->pi", scaled, solids.centre).astype(np.float32)
    starts, along = origins.astype(np.float32), rays.astype(np.float32)
    enter, leave = np.float32(0), np.float32(np.inf)
    for axis in range(3):
        inverse = 1 / (along @ scaled[:, axis].T + np.float32(1e-9))  # (n,P)
        middle, reach = (offset[:, axis] - starts @ scaled[:, axis].T) * inverse, np.abs(inverse)
        enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    return np.asarray(np.where(enter < leave, enter, np.inf).min(axis=1), np.float64)


def _turn(yaw: float, pitch: float, *, roll: float) -> Floats:
    """Radians (yaw 0 looks along -z, pitch up is positive) -> (3,3) camera to world, columns right, down, forward."""
    forward = np.array([-sin(yaw) * cos(pitch), sin(pitch), -cos(yaw) * cos(pitch)])
    right = np.array([cos(yaw), 0.0, -sin(yaw)])
    down = np.array([-sin(yaw) * sin(pitch), -cos(pitch), -cos(yaw) * sin(pitch)])
    return np.stack([cos(roll) * right + sin(roll) * down, cos(roll) * down - sin(roll) * right, forward], axis=1)
