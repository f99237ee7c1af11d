"""Colour of the hit points: textured materials under a lamp with shadows, a window and ambient light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.rendering import textures
from depthray.data.rendering.raycast import BOX, CYLINDER, ELLIPSOID, FACES, Hits, RenderCamera, Solids, cast_solids
from depthray.data.rendering.rooms import SHELL, Content, Room

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_SHADOW = 192  # side of the lamp's shadow map of the room, texels
_PLAN = 96  # side of the plan of the floor, texels
_SKY = np.array((0.8, 0.92, 1.1), np.float32)  # colour of the light from the window
_NORMALS = np.array([(s * (k == 0), s * (k == 1), s * (k == 2)) for k in range(3) for s in (-1, 1)], np.float64)
_ALONG = np.array([(0, 0, 1), (1, 0, 0), (1, 0, 0)], np.float64)  # texture u by axis of the face
_ACROSS = np.array([(0, 1, 0), (0, 0, 1), (0, 1, 0)], np.float64)  # texture v


@dataclass(frozen=True)
class Faces:
    """The properties of every face that shading needs: F = solids * FACES rows, first the FACES of the room itself."""

    shape: Ints  # (F,) BOX where the face is flat
    centre: Floats  # (F,3) of its solid
    quadric: Floats  # (F,4) xx, xz, zz and yy of the form whose gradient is the normal where round
    around: Floats  # (F,) tiles around it where round
    normal: Floats  # (F,3) outward (inward for the room) where flat
    along: Floats  # (F,3) texture u of a point, in tiles a metre
    across: Floats  # (F,3) texture v
    dark: Floats  # (F,3) colour
    span: Floats  # (F,3) light colour less dark colour
    texture: Floats  # (F,2) tiles a metre, glow
    pattern: Ints  # (F,)
    label: Ints  # (F,)
    instance: Ints  # (F,)


class Light(NamedTuple):
    """The lamp as a camera looking down, the depth it sees, and how crowded the floor is."""

    eye: RenderCamera
    depth: Floats  # (_SHADOW,_SHADOW) metres below the lamp
    crowd: Floats  # (_PLAN,_PLAN) 0 free floor .. 1 under furniture, blurred


def faces_of(room: Room, contents: Sequence[Content]) -> Faces:
    """The room and its contents in the order they are cast -> a row for every face"""
    groups = [room.box, *(content.solids for content in contents)]
    shape, centre, half, yaw = (
        np.concatenate([getattr(solids, key) for solids in groups]) for key in ("shape", "centre", "half", "yaw")
    )
    materials = [*room.shell, *(m for content in contents for m in content.materials for _ in range(FACES))]
    to_local = Solids(shape, centre, half, yaw).to_local
    normal, along, across = (
        (basis @ to_local).reshape(-1, 3) for basis in (_NORMALS, _ALONG.repeat(2, axis=0), _ACROSS.repeat(2, axis=0))
    )
    normal[:FACES] *= -1  # the room is seen from inside
    dark, light = np.array([m.dark for m in materials]), np.array([m.light for m in materials])
    tiles = np.array([(1 / m.size, m.glow) for m in materials])
    pattern = {name: textures.index_of(name) for name in textures.NAMES}
    labels = np.concatenate([content.labels for content in contents]).repeat(FACES)
    instances = np.concatenate([content.instances for content in contents]).repeat(FACES)
    caps = np.tile(np.arange(FACES) > 0, len(shape)) & (shape == CYLINDER).repeat(FACES)
    around = np.pi * (half[:, 0] + half[:, 2]).repeat(FACES) * tiles[:, 0]
    return Faces(
        shape=np.where(caps, BOX, shape.repeat(FACES)).astype(np.int32),
        centre=centre.repeat(FACES, axis=0).astype(np.float32),
        quadric=_quadrics(shape, half, yaw=yaw).repeat(FACES, axis=0).astype(np.float32),
        around=np.maximum(np.rint(around), 1).astype(np.float32),
        normal=normal.astype(np.float32),
        along=(along * tiles[:, :1]).astype(np.float32),
        across=(across * tiles[:, :1]).astype(np.float32),
        dark=dark.astype(np.float32),
        span=(light - dark).astype(np.float32),
        texture=tiles.astype(np.float32),
        pattern=np.array([pattern[m.pattern] for m in materials], np.int32),
        label=np.concatenate([np.array([1, 1, 2, 3, 1, 1]), labels]).astype(np.int32),
        instance=np.concatenate([np.arange(1, SHELL + 1), instances]).astype(np.int32),
    )


def light_of(room: Room) -> Light:
    """The lamp of a room with the shadows of its furniture"""
    x, y, z = room.lamp
    reach = min(max(room.half[0] + abs(x), room.half[1] + abs(z)) / y, 2.5)
    middle = (_SHADOW - 1) / 2
    down = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    eye = RenderCamera(np.array(room.lamp), down, _SHADOW / 2 / reach, (middle, middle), _SHADOW, _SHADOW)
    alone = Light(eye, np.full((_SHADOW, _SHADOW), np.inf, np.float32), np.zeros((_PLAN, _PLAN), np.float32))
    return obstruct(alone, room.content, room=room)


def obstruct(light: Light, content: Content, *, room: Room) -> Light:
    """The lamp with the shadows of further solids"""
    hits = Hits(light.depth.copy(), np.zeros((_SHADOW, _SHADOW), np.int32))
    cast_solids(light.eye, content.solids, hits=hits, first=0)
    return Light(light.eye, hits.depth, np.maximum(light.crowd, _crowd(room, content)))


def shade(camera: RenderCamera, hits: Hits, *, faces: Faces, room: Room, light: Light) -> Floats:
    """(H,W) hits -> (H,W,3) linear RGB."""
    face, depth = hits.face.ravel(), hits.depth.ravel()
    ray = [_field(camera, row).ravel() for row in camera.rotation.astype(np.float32)]
    point = [np.float32(origin) + depth * along for origin, along in zip(camera.position, ray, strict=True)]
    normal, u, v = _surface(point, face, faces=faces)
    tiles, glow = faces.texture.take(face, axis=0).T
    facing = np.abs(_dot(normal, ray)) / np.sqrt(_dot(ray, ray))
    # A pixel covers more texels where the surface is far or slanted; the level that fits keeps patterns from aliasing.
    texels = depth * tiles * np.float32(textures.SIDE / camera.focal) / np.maximum(facing, 0.08) ** 0.6
    level = np.clip(np.log2(texels), 0, textures.LEVELS - 1).astype(np.int32)
    grey = textures.lookup(faces.pattern[face], level, u=u, v=v)
    albedo = faces.dark.take(face, axis=0) + grey[:, None] * faces.span.take(face, axis=0)
    colour = albedo * (_incident_light(point, normal, room=room, light=light) + glow[:, None])
    return np.asarray(colour.reshape(camera.height, camera.width, 3))


def _surface(point: list[Floats], face: Ints, *, faces: Faces) -> tuple[list[Floats], Floats, Floats]:
    """(n,) points in the room and their faces -> unit normal, and position on the texture in tiles"""
    normal = list(faces.normal.take(face, axis=0).T)
    u, v = _dot(faces.along.take(face, axis=0).T, point), _dot(faces.across.take(face, axis=0).T, point)
    curved = np.flatnonzero(faces.shape[face] != BOX)
    if len(curved):
        kind = face[curved]
        centre, quadric = faces.centre[kind].T, faces.quadric[kind].T
        x, y, z = (axis[curved] - middle for axis, middle in zip(point, centre, strict=True))
        slope = (quadric[0] * x + quadric[1] * z, quadric[3] * y, quadric[1] * x + quadric[2] * z)
        steep = np.sqrt(_dot(slope, slope))
        for axis, part in zip(normal, slope, strict=True):
            axis[curved] = part / steep
        u[curved] = np.arctan2(x, z) * faces.around[kind] / np.float32(2 * np.pi)
        v[curved] = y * faces.texture[kind, 0]
    return normal, u, v


def _incident_light(point: list[Floats], normal: list[Floats], *, room: Room, light: Light) -> Floats:
    """(n,) points and normals -> (n,3) linear RGB of the light that arrives there"""
    to_lamp = [np.float32(lamp) - axis for lamp, axis in zip(room.lamp, point, strict=True)]
    square = _dot(to_lamp, to_lamp)
    lamp = np.maximum(_dot(normal, to_lamp), 0) / np.sqrt(square) * (2.2 / (1.0 + 0.3 * square))
    lamp *= _unshadowed(point, light)
    window = np.float32(0.22) * np.maximum(_dot(normal, np.array(room.window, np.float32)), 0)
    sky = np.float32(room.ambient) * (0.85 + 0.15 * normal[1]) * _ambient_share(point, normal, room=room, light=light)
    arriving = lamp[:, None] * np.array(room.warmth, np.float32)
    arriving += sky[:, None]
    arriving += window[:, None] * _SKY
    return np.asarray(arriving)


def _unshadowed(point: list[Floats], light: Light) -> Floats:
    """(n,) points -> (n,) share of four taps of the shadow map that are not in front of the point; 1 outside the map"""
    x, y, z = (axis - np.float32(origin) for axis, origin in zip(point, light.eye.position, strict=True))
    below = np.maximum(-y, 0.05)
    scale = np.float32(light.eye.focal) / below
    column, row = x * scale + np.float32(_SHADOW / 2), z * scale + np.float32(_SHADOW / 2)
    lit = np.zeros_like(below)
    for dx, dy in ((-0.6, -0.2), (0.2, -0.6), (0.6, 0.2), (-0.2, 0.6)):
        texel = np.clip(row + np.float32(dy), 0, _SHADOW - 1).astype(np.int32) * _SHADOW
        texel += np.clip(column + np.float32(dx), 0, _SHADOW - 1).astype(np.int32)
        lit += light.depth.ravel()[texel] > below - np.float32(0.04)  # the bias keeps a surface from shading itself
    outside = (y > -0.05) | (np.maximum(np.abs(x), np.abs(z)) * scale > _SHADOW / 2 - 1)
    return np.where(outside, np.float32(1), lit * np.float32(0.25))


def _ambient_share(point: list[Floats], normal: list[Floats], *, room: Room, light: Light) -> Floats:
    """(n,) points and normals -> (n,) share of ambient light that reaches them: less in corners and under things"""
    (a, b), h = room.half, room.height
    share = np.ones_like(point[0])
    for axis, turned, middle, reach in zip(point, normal, (0, h / 2, 0), (a, h / 2, b), strict=True):
        gap = (np.float32(reach) - np.abs(axis - np.float32(middle))) * np.float32(1 / 0.3)
        share *= 1 - np.float32(0.5) * (1 - np.abs(turned)) / (1 + gap * gap)
    x = ((point[0] / np.float32(2 * a) + np.float32(0.5)) * _PLAN).astype(np.int32).clip(0, _PLAN - 1)
    z = ((point[2] / np.float32(2 * b) + np.float32(0.5)) * _PLAN).astype(np.int32).clip(0, _PLAN - 1)
    low = np.maximum(1 - np.float32(3.0) * np.maximum(point[1], 0), 0)
    return np.asarray(share * (1 - np.float32(0.75) * low * light.crowd.ravel()[z * _PLAN + x]))


def _crowd(room: Room, content: Content) -> Floats:
    """Contents of a room -> (_PLAN,_PLAN) 0..1 share of the floor around a point that is covered, rows along z"""
    plan, solids = np.zeros((_PLAN, _PLAN), np.float32), content.solids
    scale = _PLAN / 2 / np.array(room.half)
    low = (solids.centre - solids.half)[:, 1] < 0.5
    corners = np.array([(-1, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)])[None] * solids.half[:, None]
    world = corners @ solids.to_local + solids.centre[:, None]
    for outline in np.rint((world[low][..., ::2] + room.half) * scale * 16).astype(np.int32):
        cv2.fillConvexPoly(plan, outline, 1.0, shift=4)
    sigma = 0.12 * scale
    return np.asarray(cv2.GaussianBlur(plan, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1]), np.float32)


def _quadrics(shape: Ints, half: NDArray[np.float64], *, yaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """P solids -> (P,4) xx, xz, zz, yy of the quadratic form that is 1 on the solid's round face"""
    c, s = np.cos(yaw), np.sin(yaw)
    x, y, z = (1 / half**2).T
    return np.stack([c * c * x + s * s * z, c * s * (z - x), s * s * x + c * c * z, y * (shape == ELLIPSOID)], axis=1)


def _field(camera: RenderCamera, row: Floats) -> Floats:
    """One row of the rotation -> (H,W) that component of every ray in the world"""
    return np.asarray(row[0] * camera.x[None] + (row[1] * camera.y + row[2])[:, None])


def _dot(one: Sequence[Floats] | Floats, other: Sequence[Floats] | Floats) -> Floats:
    return np.asarray(one[0] * other[0] + one[1] * other[1] + one[2] * other[2])
