"""Furniture and people as lists of boxes, ellipsoids and cylinders, each in its own frame.

Frame of a thing: metres, y up from the floor, origin under its middle, its front towards +z.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np

from depthray.data.rendering.raycast import BOX, CYLINDER, ELLIPSOID

Colour = tuple[float, float, float]  # linear RGB
Triple = tuple[float, float, float]
Rng = np.random.Generator


class Material(NamedTuple):
    """Two colours mixed by a pattern of textures.py, of which one tile is `size` metres wide."""

    dark: Colour
    light: Colour
    pattern: str
    size: float
    glow: float = 0.0


class SolidPart(NamedTuple):
    """One solid: its bottom centre `at`, its full size (width, height, depth) and turn about y in radians."""

    shape: int
    at: Triple
    size: Triple
    material: Material
    yaw: float = 0.0


class Thing(NamedTuple):
    """A composite with the class it is an instance of and the floor it stands on (width, depth)."""

    label: str
    parts: list[SolidPart]
    floor: tuple[float, float]


def colour(rng: Rng, *, saturation: float = 0.4, value: float = 0.6) -> Colour:
    """A random linear RGB colour around a saturation and a brightness."""
    red, green, blue = colorsys.hsv_to_rgb(
        rng.random(), saturation * rng.uniform(0.1, 1.9), min(value * rng.uniform(0.55, 1.45), 0.95)
    )
    return red * red, green * green, blue * blue  # displays square values, roughly; light is added linearly


def mix(rng: Rng, pattern: str, *, size: float, contrast: float = 0.5, tint: Colour | None = None) -> Material:
    """A material whose dark colour is the light one scaled down by `contrast`, slightly shifted in hue."""
    light = tint or colour(rng)
    red, green, blue = (channel * (1 - contrast) * rng.uniform(0.8, 1.2) for channel in light)
    return Material((red, green, blue), light, pattern, size)


def wood(rng: Rng, pattern: str = "grain") -> Material:
    """Some wood, from pale birch to dark walnut."""
    shade, warmth = rng.uniform(0.18, 0.95), rng.uniform(0.75, 1.1)
    tint = (0.62 * shade, 0.42 * shade * warmth, 0.24 * shade * warmth**2)
    return mix(rng, pattern, size=rng.uniform(0.7, 1.4), contrast=rng.uniform(0.35, 0.65), tint=tint)


def fabric(rng: Rng) -> Material:
    """A cloth: plain weave, striped, dotted or checked."""
    # Names are repeated to weight the choice.
    pattern = str(rng.choice(["carpet", "carpet", "carpet", "stripes", "dots", "checker"]))
    return mix(rng, pattern, size=rng.uniform(0.3, 0.8), contrast=rng.uniform(0.3, 0.7))


def plain(rng: Rng, tint: Colour | None = None) -> Material:
    """Paint or plastic, nearly uniform."""
    return mix(rng, "plaster", size=rng.uniform(0.8, 2.0), contrast=0.25, tint=tint)


def box(material: Material, at: Triple, size: Triple) -> SolidPart:
    """A box of a full size on its bottom centre."""
    return SolidPart(BOX, at, size, material)


def ball(material: Material, at: Triple, size: Triple) -> SolidPart:
    """An ellipsoid of a full size on its lowest point."""
    return SolidPart(ELLIPSOID, at, size, material)


def tube(material: Material, at: Triple, size: Triple) -> SolidPart:
    """An upright cylinder of a full size on its bottom centre."""
    return SolidPart(CYLINDER, at, size, material)


def legs(
    material: Material, width: float, height: float, *, depth: float, thick: float, shape: int = BOX
) -> list[SolidPart]:
    """Four upright legs at the corners of width x depth."""
    x, z = width / 2 - thick, depth / 2 - thick
    corners = ((-x, -z), (x, -z), (-x, z), (x, z))
    return [SolidPart(shape, (a, 0, b), (thick, height, thick), material) for a, b in corners]


def trinket(rng: Rng, at: Triple) -> SolidPart:
    """A small thing that stands on a table or shelf."""
    side, tall = rng.uniform(0.07, 0.2), rng.uniform(0.08, 0.32)
    x, y, z = at
    if rng.random() < 0.35:
        return ball(plain(rng), (x, y, z), (side, side, side))
    if rng.random() < 0.5:
        return tube(mix(rng, "dots", size=0.2), (x, y, z), (side, tall, side))
    return SolidPart(BOX, (x, y, z), (side * 1.4, tall, side), mix(rng, "picture", size=0.25), rng.uniform(0, 3))


def table(rng: Rng) -> Thing:
    """A table on four legs with one to three trinkets."""
    # Here and below: the sizes that such furniture has, in metres.
    width, depth, height = rng.uniform(0.9, 1.8), rng.uniform(0.65, 0.95), rng.uniform(0.68, 0.78)
    material, thick = wood(rng), rng.uniform(0.04, 0.09)
    shape = CYLINDER if rng.random() < 0.4 else BOX
    parts = [box(material, (0, height - 0.04, 0), (width, 0.04, depth))]
    parts += legs(material, width, height - 0.04, depth=depth, thick=thick, shape=shape)
    for _ in range(rng.integers(1, 4)):
        x, z = rng.uniform(-0.4, 0.4, 2) * (width, depth)
        parts.append(trinket(rng, (x, height, z)))
    return Thing("table", parts, (width, depth))


def round_table(rng: Rng) -> Thing:
    """A round table on one leg with a trinket."""
    width, height, material = rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.76), wood(rng)
    parts = [tube(material, (0, height - 0.04, 0), (width, 0.04, width)), tube(material, (0, 0, 0), (0.1, height, 0.1))]
    parts.append(tube(material, (0, 0, 0), (width / 2, 0.03, width / 2)))
    parts.append(trinket(rng, (rng.uniform(-0.2, 0.2), height, rng.uniform(-0.2, 0.2))))
    return Thing("table", parts, (width, width))


def chair(rng: Rng) -> Thing:
    """A chair with an upholstered seat and back."""
    width, height, frame, seat = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48), wood(rng), fabric(rng)
    parts = [box(seat, (0, height - 0.05, 0), (width, 0.05, width))]
    parts += legs(frame, width, height - 0.05, depth=width, thick=0.04)
    parts.append(box(seat, (0, height + 0.12, -width / 2 + 0.02), (width, rng.uniform(0.25, 0.4), 0.04)))
    parts += [box(frame, (x, height, -width / 2 + 0.02), (0.04, 0.2, 0.04)) for x in (-width / 2.6, width / 2.6)]
    return Thing("chair", parts, (width, width))


def shelf(rng: Rng) -> Thing:
    """An open shelf of three to five boards with books and balls."""
    width, height, depth = rng.uniform(0.6, 1.4), rng.uniform(1.2, 2.1), rng.uniform(0.25, 0.4)
    material = wood(rng)
    parts = [box(material, (x, 0, 0), (0.03, height, depth)) for x in (-width / 2, width / 2)]
    parts.append(box(mix(rng, "plaster", size=1, tint=material.dark), (0, 0, -depth / 2 + 0.01), (width, height, 0.02)))
    count = int(rng.integers(3, 6))
    boards = np.linspace(0.05, height - 0.03, count + 1)
    parts += [box(material, (0, float(y), 0), (width, 0.03, depth)) for y in boards]
    for y in boards[:-1]:
        parts += _on_board(rng, float(y) + 0.03, width=width, depth=depth, gap=(height - 0.08) / count - 0.05)
    return Thing("shelf", parts, (width + 0.03, depth))  # the sides stand half outside


def _on_board(rng: Rng, y: float, *, width: float, depth: float, gap: float) -> list[SolidPart]:
    """The things on one board, `gap` metres below the next: a row of books, a ball or nothing."""
    share = rng.uniform(0.3, 0.9)
    x = rng.uniform(-0.5, 0.5) * width * (1 - share) * 0.9
    if rng.random() < 0.7:
        books = Material(colour(rng, value=0.3), colour(rng, value=0.9), "books", 0.9)
        return [box(books, (x, y, -0.02), (width * share * 0.93, gap * rng.uniform(0.7, 0.95), depth * 0.75))]
    if rng.random() < 0.7 and gap > 0.2:
        return [ball(plain(rng), (x, y, 0), (0.17, 0.17, 0.17))]
    return []


def cabinet(rng: Rng) -> Thing:
    """A cabinet with a grid of doors; a low one has a trinket on it."""
    width, height, depth = rng.uniform(0.5, 1.3), rng.uniform(0.5, 2.0), rng.uniform(0.35, 0.6)
    body, front = wood(rng), wood(rng) if rng.random() < 0.5 else plain(rng)
    columns, rows = max(1, round(width / 0.5)), max(1, round(height / 0.7))
    parts = [box(body, (0, 0, 0), (width, height, depth))]
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * width / columns - width / 2, row * height / rows
            parts.append(box(front, (x, y + 0.02, depth / 2), (width / columns - 0.04, height / rows - 0.04, 0.03)))
    if height < 1.2:
        parts.append(trinket(rng, (rng.uniform(-0.4, 0.4) * width, height, 0)))
    return Thing("cabinet", parts, (width, depth + 0.03))  # with the doors


def bed(rng: Rng) -> Thing:
    """A bed with pillows and a cover, head against its back."""
    width, length, height = rng.uniform(0.9, 1.7), rng.uniform(1.9, 2.1), rng.uniform(0.2, 0.35)
    frame, sheet, cover = wood(rng), plain(rng, (0.8, 0.8, 0.78)), fabric(rng)
    parts = [
        box(frame, (0, 0.05, 0), (width, height, length)),
        box(sheet, (0, height + 0.05, 0), (width - 0.04, 0.2, length - 0.06)),
    ]
    parts.append(box(cover, (0, height + 0.07, length * 0.14), (width + 0.02, 0.21, length * 0.7)))
    parts.append(box(frame, (0, 0, -length / 2), (width, height + rng.uniform(0.4, 0.8), 0.05)))
    pillows = (0.0,) if width < 1.2 else (-width / 4, width / 4)
    parts += [ball(sheet, (x, height + 0.22, -length / 2 + 0.28), (0.58, 0.16, 0.4)) for x in pillows]
    return Thing("bed", parts, (width + 0.02, length + 0.05))  # with the cover and the head


def sofa(rng: Rng) -> Thing:
    """A sofa with arms and cushions."""
    width, depth, seat = rng.uniform(1.3, 2.3), rng.uniform(0.8, 0.95), rng.uniform(0.38, 0.45)
    cloth, arm = fabric(rng), rng.uniform(0.14, 0.22)
    parts = [box(cloth, (0, 0.06, 0), (width, seat - 0.16, depth))]
    parts.append(box(cloth, (0, 0.06, -depth / 2 + 0.1), (width, rng.uniform(0.66, 0.85), 0.2)))
    parts += [box(cloth, (x, 0.06, 0), (arm, seat + 0.15, depth)) for x in (arm / 2 - width / 2, width / 2 - arm / 2)]
    # Cushions: the odd points of a division into twice as many parts are their centres.
    cushions = np.linspace(-1, 1, 2 * max(2, round(width / 0.7)) + 1)[1::2] * (width / 2 - arm)
    wide = float(cushions[1] - cushions[0]) - 0.015
    parts += [box(cloth, (float(x), seat - 0.1, 0.08), (wide, 0.12, depth - 0.2)) for x in cushions]
    if rng.random() < 0.6:
        parts.append(SolidPart(ELLIPSOID, (float(cushions[0]), seat, -0.12), (0.42, 0.4, 0.16), fabric(rng)))
    return Thing("sofa", parts, (width, depth))


def lamp(rng: Rng) -> Thing:
    """A floor lamp, switched on or off."""
    height, metal, wide = rng.uniform(1.3, 1.8), plain(rng), rng.uniform(0.25, 0.45)
    # It glows or not, and lights nothing: shadows are those of the ceiling's lamp alone.
    shade = Material((0.8, 0.65, 0.4), (0.95, 0.85, 0.65), "plaster", 0.5, rng.choice([0.0, 1.4]))
    parts = [tube(metal, (0, 0, 0), (0.3, 0.03, 0.3)), tube(metal, (0, 0, 0), (0.035, height, 0.035))]
    return Thing("lamp", [*parts, tube(shade, (0, height - 0.1, 0), (wide, wide * 0.7, wide))], (0.4, 0.4))


def plant(rng: Rng) -> Thing:
    """A pot with leaves."""
    pot, height, wide = mix(rng, "plaster", size=0.5), rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.6)
    # The carpet's pattern has the finest detail, as foliage does.
    leaf = Material((0.01, 0.05, 0.01), (0.12, 0.36, 0.06), "carpet", 0.35)
    parts = [tube(pot, (0, 0, 0), (0.32, height, 0.32))]
    for _ in range(int(rng.integers(3, 6))):
        x, z = rng.uniform(-0.14, 0.14, 2)
        parts.append(ball(leaf, (x, height + rng.uniform(-0.05, 0.4), z), (wide, wide * rng.uniform(0.6, 1.3), wide)))
    return Thing("plant", parts, (0.7, 0.7))


def crates(rng: Rng) -> Thing:
    """One to three boxes on top of each other."""
    parts: list[SolidPart] = []
    y, side = 0.0, rng.uniform(0.3, 0.6)
    floor = (side * 1.5, side * 1.5)  # a square that is turned reaches 1.41 of its side
    for _ in range(int(rng.integers(1, 4))):
        height = rng.uniform(0.5, 1.0) * side
        cover = (
            wood(rng) if rng.random() < 0.4 else mix(rng, str(rng.choice(["picture", "checker", "plaster"])), size=0.5)
        )
        parts.append(SolidPart(BOX, (0, y, 0), (side, height, side * rng.uniform(0.7, 1.0)), cover, rng.uniform(0, 3)))
        y, side = y + height, side * rng.uniform(0.7, 0.95)  # each smaller than the one below
    return Thing("box", parts, floor)


def sphere(rng: Rng) -> Thing:
    """A patterned ball on the floor."""
    size = rng.uniform(0.2, 0.6)
    cover = mix(rng, str(rng.choice(["stripes", "dots", "checker", "plaster"])), size=size * 1.5, contrast=0.7)
    return Thing("ball", [ball(cover, (0, 0, 0), (size, size, size))], (size, size))


def person(rng: Rng) -> Thing:
    """Someone standing, 1.5 to 1.9 m tall, arms and legs a little apart."""
    # Proportions of an adult: hips at half, shoulders at five sixths of the height.
    tall, stance = rng.uniform(1.5, 1.9), rng.uniform(0.07, 0.14)
    tone = rng.uniform(0.15, 0.9)
    skin, hair = plain(rng, (0.75 * tone, 0.5 * tone, 0.38 * tone)), plain(rng, (0.2 * tone, 0.12 * tone, 0.07 * tone))
    shirt, trousers, shoes = fabric(rng), plain(rng), plain(rng, (0.05, 0.05, 0.06))
    hip, shoulder, step = 0.5 * tall, 0.83 * tall, rng.uniform(-0.12, 0.12)
    parts = [box(shoes, (s * stance, 0, s * step + 0.05), (0.1, 0.08, 0.27)) for s in (-1, 1)]
    parts += [tube(trousers, (s * stance, 0.05, s * step), (0.15, hip - 0.02, 0.16)) for s in (-1, 1)]
    parts.append(ball(trousers, (0, hip - 0.14, 0), (0.36, 0.26, 0.26)))
    parts.append(tube(shirt, (0, hip, 0), (0.34, shoulder - hip - 0.05, 0.2)))
    parts.append(ball(shirt, (0, shoulder - 0.18, 0), (0.46, 0.26, 0.24)))
    reach = rng.uniform(0.19, 0.23)
    parts += [ball(shirt, (s * reach, hip + 0.1, -s * step / 2), (0.11, shoulder - hip - 0.1, 0.12)) for s in (-1, 1)]
    parts += [ball(skin, (s * reach, hip - 0.1, -s * step), (0.09, 0.32, 0.1)) for s in (-1, 1)]
    parts.append(tube(skin, (0, shoulder, 0), (0.11, 0.1, 0.11)))
    parts.append(ball(skin, (0, tall - 0.24, 0), (0.17, 0.23, 0.2)))
    parts.append(ball(hair, (0, tall - 0.15, -0.025), (0.185, 0.16, 0.2)))
    return Thing("person", parts, (0.6, 0.5))
