"""Rendered rooms with exact depth, ids, and every frame with and without a foreground object.

A frame is a pure function of (seed, index): the same on every machine, in every process, in any order.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.data import raycast, rooms, shading
from depthray.data.raycast import FACES, Camera, Hits
from depthray.data.rooms import CLASSES, Content, Room
from depthray.data.shading import Faces, Floats, Light

__all__ = ["CLASSES", "POSES", "render_frame", "scene_of"]

POSES = 4  # frames of one room
_SALT_SENSOR = 103


def scene_of(index: int) -> str:
    """The room a frame belongs to."""
    return f"room-{index // POSES:04d}"


def render_frame(seed: int, index: int, *, height: int, width: int, foreground: bool = True) -> Sample:
    """Seed, frame -> (H,W,3) image and background, (H,W) depth in metres, ids and mask, (3,3) intrinsics.

    Without the foreground object, image equals background and the mask is empty.
    """
    number, pose = divmod(index, POSES)
    room, camera = rooms.build(seed, number), rooms.camera(seed, number, pose, height=height, width=width)
    contents = [room.content, rooms.foreground(seed, number, pose)]
    faces, light = shading.faces_of(room, contents), _light(seed, number)
    hits = raycast.inside(camera, room.box)
    raycast.cast(camera, room.content.solids, hits=hits, first=1)
    empty = shading.shade(camera, hits, pixels=slice(None), faces=faces, room=room, light=light)
    film = _Film(seed, index, empty)
    background = image = film.develop(empty, camera)
    first = 1 + len(room.content.labels)
    if foreground:
        hits = Hits(hits.depth.copy(), hits.face.copy())
        raycast.cast(camera, contents[1].solids, hits=hits, first=first)
        full = shading.shade(camera, hits, pixels=slice(None), faces=faces, room=room, light=_with(light, room, contents))
        image = film.develop(full, camera)
    return Sample(
        image=image,
        depth=hits.depth,
        semantics=faces.label[hits.face],
        instances=faces.instance[hits.face],
        background=background,
        mask=(hits.face >= first * FACES).astype(np.uint8),
        intrinsics=camera.intrinsics,
        id=f"{scene_of(index)}-{pose}",
        scene=scene_of(index),
        source="synthetic",
    )


@lru_cache(maxsize=8)
def _light(seed: int, number: int) -> Light:
    room = rooms.build(seed, number)
    return shading.light_of(room, [room.content])


def _with(light: Light, room: Room, contents: list[Content]) -> Light:
    return shading.light_of(room, contents)


class _Film:
    def __init__(self, seed: int, index: int, empty: Floats) -> None:
        self.rng_key = [seed, index, _SALT_SENSOR]
        rng = np.random.default_rng(self.rng_key)
        self.exposure = np.float32(0.30 * rng.uniform(0.8, 1.25) / (empty.mean() + 1e-3))
        self.noise_level = rng.uniform(0.5, 2.5)

    def develop(self, linear: Floats, camera: Camera) -> NDArray[np.uint8]:
        picture = linear.reshape(camera.height, camera.width, 3) * self.exposure
        picture = cv2.GaussianBlur(picture, (3, 3), 0.5)
        bright = np.sqrt(picture / (1 + 0.35 * picture)) * 255 * 1.08
        rng = np.random.default_rng([*self.rng_key, 1])
        bright += rng.standard_normal((camera.height, camera.width, 1), np.float32) * self.noise_level
        return bright.clip(0, 255).astype(np.uint8)
