"""Bodies of requests harmed at random, drawn from good ones of every kind."""

from __future__ import annotations

import random

import numpy as np
from asgi import form
from serve_backend import encoded, npy, npz, scene

SPARSE = np.linspace(0, 5, 32 * 48, dtype=np.float32).reshape(32, 48)
FORM, [(_, FORM_KIND)] = form(("image", encoded(scene())), ("sparse", npy(SPARSE)))
SEEDS = [
    ("image/jpeg", encoded(scene(), "JPEG")),
    ("image/jpeg", encoded(scene(), "JPEG", progressive=True)),
    ("image/png", encoded(scene())),
    ("image/png", encoded(scene(), mode="P")),
    ("image/webp", encoded(scene(), "WEBP")),
    ("image/webp", encoded(scene(), "WEBP", lossless=True)),
    ("application/x-npz", npz(image=scene(), sparse=SPARSE)),
    ("application/x-npz", npz(image=scene(), deflated=True)),
    (FORM_KIND, FORM),
]
NASTY = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\r\n\r\n", b"--", b"(", b"'", b"PK\x05\x06"]


def harmed(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to six of: a bit flipped, a piece overwritten, cut out, doubled; or the end missing."""
    harm = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(max(1, len(harm)))
        size = chance.choice((1, 2, 4, 32, 300))
        match chance.randrange(6):
            case 0 if harm:
                harm[min(place, len(harm) - 1)] ^= 1 << chance.randrange(8)
            case 1:
                harm[place : place + size] = chance.randbytes(size)
            case 2:
                del harm[place : place + size]
            case 3:
                harm[place:place] = harm[place : place + size]
            case 4:
                word = chance.choice(NASTY)
                harm[place : place + len(word)] = word
            case _ if chance.random() < 0.3:
                del harm[place:]
    return bytes(harm)
