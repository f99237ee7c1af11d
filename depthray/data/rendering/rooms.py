"""Rooms: the things in them, their positions and materials. A pure function of (seed, room).

The floor is y = 0 and the origin its middle. Instance ids: 1 to 6 the room's own faces, then one for each thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.rendering import furniture
from depthray.data.rendering.furniture import Material, Rng, SolidPart, Thing
from depthray.data.rendering.raycast import BOX, Solids

CLASSES = (
    *("none", "wall", "floor", "ceiling", "door", "window", "picture", "rug", "table", "chair", "shelf"),
    *("cabinet", "bed", "sofa", "lamp", "plant", "box", "ball", "person"),
)
KEPT = 256  # rooms a process caches, some 50 kB each: frames are read in any order
SHELL = 6  # instances of the room itself, one a face
_ALONG_WALLS = (
    furniture.shelf,
    furniture.cabinet,
    furniture.cabinet,
    furniture.bed,
    furniture.sofa,
    furniture.sofa,
    furniture.table,
)
_ANYWHERE = (furniture.crates, furniture.crates, furniture.sphere, furniture.plant, furniture.lamp, furniture.chair)


class Placed(NamedTuple):
    """A thing at a position in the room: y is that of its lowest point, yaw its rotation about y in radians."""

    thing: Thing
    x: float
    y: float
    z: float
    yaw: float

    def parts(self) -> list[SolidPart]:
        """Its parts in the frame of the room."""
        c, s = cos(self.yaw), sin(self.yaw)
        return [
            part._replace(
                at=(
                    c * part.at[0] + s * part.at[2] + self.x,
                    part.at[1] + self.y,
                    c * part.at[2] - s * part.at[0] + self.z,
                ),
                yaw=part.yaw + self.yaw,
            )
            for part in self.thing.parts
        ]

    @property
    def plan(self) -> tuple[float, float, float, float]:
        """The rectangle it covers on the floor: least x and z, greatest x and z."""
        (w, d), c, s = self.thing.floor, abs(cos(self.yaw)), abs(sin(self.yaw))
        half_x, half_z = (c * w + s * d) / 2, (s * w + c * d) / 2
        return self.x - half_x, self.z - half_z, self.x + half_x, self.z + half_z


@dataclass(frozen=True)
class Content:
    """Solids with the class, instance and materials of each (six materials for the shell, one for the rest)."""

    solids: Solids
    labels: NDArray[np.int32]  # (P,)
    instances: NDArray[np.int32]  # (P,)
    materials: list[Material]  # P


@dataclass(frozen=True)
class Room:
    """A furnished, lit room."""

    half: tuple[float, float]  # half of the width (x) and of the depth (z), metres
    height: float
    shell: tuple[Material, ...]  # of the faces -x, +x, -y, +y, -z, +z
    content: Content
    standing: NDArray[np.float64]  # (K,4) rectangles on the floor that are taken
    lamp: tuple[float, float, float]  # position of the light
    warmth: tuple[float, float, float]  # colour of that light
    ambient: float  # share of light that comes from everywhere
    window: tuple[float, float, float]  # direction towards a second, weak light

    @property
    def box(self) -> Solids:
        """The room itself as one box."""
        (a, b), h = self.half, self.height
        return Solids(np.array([BOX], np.int32), np.array([[0, h / 2, 0]]), np.array([[a, h / 2, b]]), np.zeros(1))


@lru_cache(maxsize=KEPT)
def build(seed: int, number: int) -> Room:
    """The room of this number."""
    rng = np.random.default_rng([seed, number])
    half, height = _floor(rng), rng.uniform(2.35, 2.9)
    standing = _furnish(rng, half)
    hung = _hang(rng, half, height=height)
    lamp = (rng.uniform(-0.5, 0.5) * half[0], height - 0.3, rng.uniform(-0.5, 0.5) * half[1])
    # Above the light, not around it: solids throw shadows.
    globe = Material((1, 1, 1), (1, 1, 1), "plaster", 1.0, 1.6)
    hung.append(
        Placed(
            Thing("lamp", [furniture.ball(globe, (0, 0, 0), (0.4, 0.16, 0.4))], (0.4, 0.4)),
            lamp[0],
            height - 0.17,
            lamp[2],
            0,
        )
    )
    turn = rng.uniform(0, 2 * pi)
    return Room(
        half=half,
        height=height,
        shell=_papered(rng),
        content=assemble([*standing, *hung], first_instance=SHELL + 1),
        standing=np.array([placed.plan for placed in standing]).reshape(-1, 4),
        lamp=lamp,
        warmth=(1.0, rng.uniform(0.82, 0.97), rng.uniform(0.62, 0.95)),
        ambient=rng.uniform(0.22, 0.42),
        window=(cos(turn) * 0.8, 0.6, sin(turn) * 0.8),
    )


def assemble(things: Sequence[Placed], *, first_instance: int) -> Content:
    """Placed things -> their solids, each thing one instance."""
    parts = [(part, number, placed.thing.label) for number, placed in enumerate(things) for part in placed.parts()]
    half = np.array([part.size for part, _, _ in parts]) / 2
    centre = np.array([part.at for part, _, _ in parts])
    # Parts are positioned by their bottom centre, solids by their middle.
    centre[:, 1] += half[:, 1]
    solids = Solids(
        np.array([part.shape for part, _, _ in parts], np.int32),
        centre,
        half,
        np.array([part.yaw for part, _, _ in parts]),
    )
    labels = np.array([CLASSES.index(label) for _, _, label in parts], np.int32)
    instances = np.array([first_instance + number for _, number, _ in parts], np.int32)
    return Content(solids, labels, instances, [part.material for part, _, _ in parts])


def _floor(rng: Rng) -> tuple[float, float]:
    """Half the width and depth of a room whose floor has a diagonal of at most 9.5 m: all depth is below 10 m."""
    long = rng.uniform(1.6, 4.2)
    short = rng.uniform(1.5, min(3.2, sqrt(4.75**2 - long**2)))  # 4.75 m is half of the longest diagonal
    return (long, short) if rng.random() < 0.5 else (short, long)


def _furnish(rng: Rng, half: tuple[float, float]) -> list[Placed]:
    """Furniture along the walls, a table with chairs where it fits, things on the floor; none overlap."""
    placed: list[Placed] = []
    # Large things first, while the walls are free.
    for _ in range(int(rng.integers(4, 8))):
        _try_to_place(placed, half, propose=_against_wall(rng, half, thing=_pick(rng, _ALONG_WALLS)))
    _dine(rng, placed, half=half)
    for _ in range(int(rng.integers(2, 7))):
        _try_to_place(placed, half, propose=_on_floor(rng, half, thing=_pick(rng, _ANYWHERE)))
    if rng.random() < 0.5:
        rug = furniture.mix(rng, str(rng.choice(["carpet", "stripes", "checker", "dots"])), size=rng.uniform(0.4, 1.2))
        size = (rng.uniform(0.5, 1.2) * half[0], 0.012, rng.uniform(0.5, 1.2) * half[1])
        # Of no size on the floor: furniture stands on it, and so may the foreground object.
        placed.append(Placed(Thing("rug", [furniture.box(rug, (0, 0, 0), size)], (0, 0)), 0, 0, 0, rng.normal(0, 0.1)))
    return placed


def _pick(rng: Rng, makers: Sequence[Callable[[Rng], Thing]]) -> Thing:
    return makers[int(rng.integers(len(makers)))](rng)


def _against_wall(rng: Rng, half: tuple[float, float], *, thing: Thing) -> Callable[[], Placed]:
    """Proposals for a thing with its back to a random wall."""

    def propose() -> Placed:
        wall, gap = int(rng.integers(4)), thing.floor[1] / 2 + 0.02
        along = rng.uniform(-1, 1) * max(half[wall % 2] - thing.floor[0] / 2 - 0.03, 0.0)
        across = (half[1 - wall % 2] - gap) * (1 if wall > 1 else -1)
        x, z = (along, across) if wall % 2 == 0 else (across, along)
        return Placed(thing, x, 0.0, z, wall * pi / 2)

    return propose


def _on_floor(rng: Rng, half: tuple[float, float], *, thing: Thing) -> Callable[[], Placed]:
    """Proposals for a thing anywhere on the floor, turned at random."""

    def propose() -> Placed:
        x, z = rng.uniform(-1, 1, 2) * half
        return Placed(thing, float(x), 0.0, float(z), rng.uniform(0, 2 * pi))

    return propose


def _dine(rng: Rng, placed: list[Placed], *, half: tuple[float, float]) -> None:
    """A table away from the walls with chairs around it, or nothing in a small room."""
    if min(half) < 1.9 or rng.random() < 0.3:
        return
    thing = furniture.table(rng) if rng.random() < 0.5 else furniture.round_table(rng)
    count = len(placed)
    _try_to_place(
        placed, (0.55 * half[0], 0.55 * half[1]), propose=_on_floor(rng, (0.4 * half[0], 0.4 * half[1]), thing=thing)
    )
    if len(placed) == count:
        return
    table = placed[-1]
    for side in range(4):
        turn = table.yaw + side * pi / 2
        away = thing.floor[1 - side % 2] / 2 + rng.uniform(0.1, 0.45)
        chair = Placed(
            furniture.chair(rng),
            table.x + away * sin(turn),
            0.0,
            table.z + away * cos(turn),
            turn + pi + rng.normal(0, 0.2),
        )
        if rng.random() < 0.75 and not any(_overlap(chair, other) for other in placed if other is not table):
            placed.append(chair)


def _try_to_place(placed: list[Placed], half: tuple[float, float], *, propose: Callable[[], Placed]) -> None:
    """Add the first of a few proposals that is inside the walls and overlaps nothing; none if all fail."""
    for _ in range(6):
        new = propose()
        x0, z0, x1, z1 = new.plan
        inside = min(x0 + half[0], half[0] - x1, z0 + half[1], half[1] - z1) >= 0
        if inside and not any(_overlap(new, other) for other in placed):
            placed.append(new)
            return


def _overlap(one: Placed, other: Placed) -> bool:
    # Their bounding rectangles with 5 cm between: exact outlines would only fill the gaps of rotated furniture.
    a, b = one.plan, other.plan
    return a[0] < b[2] + 0.05 and b[0] < a[2] + 0.05 and a[1] < b[3] + 0.05 and b[1] < a[3] + 0.05


def _hang(rng: Rng, half: tuple[float, float], *, height: float) -> list[Placed]:
    """A door, windows and pictures on the walls."""
    hung = []
    for wall in range(4):
        names = ["door", "picture"] if wall == 0 else [str(rng.choice(["window", "picture", "picture"]))]
        for number, name in enumerate(names):
            span = 2 * half[wall % 2] / len(names)
            along = (number + rng.uniform(0.35, 0.65)) * span - half[wall % 2]
            across = half[1 - wall % 2] * (1 if wall > 1 else -1)
            x, z = (along, across) if wall % 2 == 0 else (across, along)
            hung.append(
                Placed(_panel(rng, name), x, 0.0 if name == "door" else rng.uniform(0.9, 1.4), z, wall * pi / 2)
            )
    # A panel that would reach through the ceiling is left out.
    return [panel for panel in hung if panel.y + panel.thing.parts[0].size[1] < height]


def _panel(rng: Rng, name: str) -> Thing:
    """A flat thing on a wall, with a frame around it."""
    width, tall = {
        "door": (0.9, 2.05),
        "window": (1.2, 0.95),
        "picture": (rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.9)),
    }[name]
    frame = furniture.wood(rng)
    filling = {
        "door": furniture.wood(rng),
        "window": Material((0.5, 0.65, 0.9), (0.9, 0.95, 1.0), "plaster", 2.0, rng.uniform(0.3, 1.0)),
        "picture": Material(
            furniture.colour(rng, value=0.35), furniture.colour(rng, value=0.9), "picture", max(width, tall)
        ),
    }[name]
    parts = [
        furniture.box(frame, (0, 0, 0), (width, tall, 0.05)),
        furniture.box(filling, (0, 0.05, 0), (width - 0.1, tall - 0.1, 0.07)),
    ]
    return Thing(name, parts, (width, 0.05))


def _papered(rng: Rng) -> tuple[Material, ...]:
    """Materials of the shell: walls alike (one may differ), a floor, a pale ceiling."""
    kinds = ["plaster", "plaster", "plaster", "stripes", "bricks", "dots", "tiles"]
    tint = furniture.colour(rng, saturation=0.25, value=0.85)
    wall = furniture.mix(
        rng, str(rng.choice(kinds)), size=rng.uniform(0.8, 2.0), contrast=rng.uniform(0.12, 0.35), tint=tint
    )
    other = furniture.mix(rng, str(rng.choice(kinds)), size=1.2, contrast=0.3) if rng.random() < 0.35 else wall
    kind = str(rng.choice(["planks", "planks", "tiles", "carpet", "checker"]))
    floor = (
        furniture.wood(rng, kind)
        if kind == "planks"
        else furniture.mix(rng, kind, size=rng.uniform(0.8, 2.0), contrast=0.5)
    )
    ceiling = furniture.mix(rng, "plaster", size=2.0, contrast=0.1, tint=(0.8, 0.8, 0.78))
    return wall, wall, floor, ceiling, other, wall
