"""Rendered rooms with exact depth, ids, and every frame with and without a foreground object.

A frame is a pure function of (seed, index): the same in every process and in any order. The size of the image
changes how finely a scene is sampled, not the scene.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.data.rendering import poses, raycast, rooms, shading
from depthray.data.rendering.raycast import FACES
from depthray.data.rendering.rooms import CLASSES
from depthray.data.rendering.shading import Floats, Light

__all__ = ["CLASSES", "POSES", "render_frame", "scene_of"]

POSES = 4  # frames of one room
_SALT_FILM = 103  # as those of poses.py: independent draws for each purpose


def scene_of(index: int) -> str:
    """The room a frame belongs to."""
    return f"room-{index // POSES:04d}"


def id_of(index: int) -> str:
    """The name of a frame: its room and pose."""
    return f"{scene_of(index)}-{index % POSES}"


def render_frame(seed: int, index: int, *, height: int, width: int, foreground: bool = True) -> Sample:
    """Seed, frame -> (H,W,3) image and background, (H,W) depth in metres, ids and mask, (3,3) intrinsics.

    Without the foreground object the image equals the background and the mask is empty.
    """
    number, pose = divmod(index, POSES)
    room, light = rooms.build(seed, number), _light(seed, number)
    front = poses.foreground(seed, number, pose)
    camera = poses.camera_pose(seed, number, pose).camera(height=height, width=width)
    faces = shading.faces_of(room, [room.content, front])
    hits = raycast.cast_walls(camera, room.box)
    raycast.cast_solids(camera, room.content.solids, hits=hits, first=1)
    # Before the foreground is cast into the same hits.
    empty = shading.shade(camera, hits, faces=faces, room=room, light=light)
    film = _film(seed, index, empty)
    # Both images share exposure and noise, so that they are equal wherever the object neither is nor throws a shadow.
    background = image = _develop(empty, film)
    first = 1 + len(room.content.labels)
    if foreground:
        raycast.cast_solids(camera, front.solids, hits=hits, first=first)
        light = shading.obstruct(light, front, room=room)  # the object throws a shadow on what stays visible
        image = _develop(shading.shade(camera, hits, faces=faces, room=room, light=light), film)
    return Sample(
        image=image,
        depth=hits.depth,
        semantics=faces.label[hits.face],
        instances=faces.instance[hits.face],
        background=background,
        mask=(hits.face >= first * FACES).astype(np.uint8),  # faces are numbered by solid, the foreground's last
        intrinsics=camera.intrinsics,
        id=id_of(index),
        scene=scene_of(index),
        source="synthetic",
    )


class _Film(NamedTuple):
    """How light becomes colour in one frame; the same with and without the foreground object."""

    exposure: np.float32
    grain: Floats  # (H,W,1) sensor noise, in steps of 8-bit colour


def _film(seed: int, index: int, empty: Floats) -> _Film:
    """(H,W,3) linear light of the background -> the exposure that suits it, and (H,W,1) noise"""
    rng = np.random.default_rng([seed, index, _SALT_FILM])
    # As a camera does: the brighter the room, the less.
    exposure = np.float32(rng.uniform(0.24, 0.38) / (empty.mean() + 1e-3))
    noise = np.float32(rng.uniform(0.5, 2.5))
    return _Film(exposure, noise * rng.standard_normal((*empty.shape[:2], 1), np.float32))


def _develop(light: Floats, film: _Film) -> NDArray[np.uint8]:
    """(H,W,3) linear light -> (H,W,3) uint8 RGB, slightly blurred as by a lens"""
    # Blurred before tone mapping, as a lens blurs light and not pixels.
    soft = cv2.GaussianBlur(light * film.exposure, (3, 3), 0.5)
    # Bright light saturates gently, and the root is the gamma of a display, roughly.
    bright = np.sqrt(soft / (1 + np.float32(0.35) * soft)) * np.float32(275) + film.grain
    return np.asarray(np.clip(bright, 0, 255), np.uint8)


@lru_cache(maxsize=rooms.KEPT)
def _light(seed: int, number: int) -> Light:
    return shading.light_of(rooms.build(seed, number))
