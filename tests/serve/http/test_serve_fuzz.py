"""Bodies harmed at random: each is answered or refused, none is a fault. DEPTHRAY_FUZZ=20000 tries more of them."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

from asgi import call
from harmed_bodies import SEEDS, harmed
from serve_backend import app

ROUNDS = int(os.environ.get("DEPTHRAY_FUZZ", "400"))


def test_corrupted_bodies_are_answered_or_refused() -> None:
    chance = random.Random(ROUNDS)
    api = app(limits={"pixels": 1_000_000, "batch_pixels": 1_000_000})
    seen: Counter[int] = Counter()

    async def rounds() -> None:
        for _ in range(ROUNDS):
            kind, data = chance.choice(SEEDS)
            path = chance.choice(("/v1/depth", "/v1/depth", "/v1/models/completion/depth", "/v1/depth:batch"))
            form_name = chance.choice(("png", "npy", "ply"))
            body = harmed(data, chance)
            headers = [("Content-Type", kind)]
            reply = await call(api, "POST", f"{path}?format={form_name}", body=body, headers=headers)
            assert reply.status in (200, 400, 415, 422), (reply.status, body)
            seen[reply.status] += 1

    asyncio.run(rounds())
    assert len(seen) == 4, seen  # otherwise the harm is too coarse or too fine to tell anything
