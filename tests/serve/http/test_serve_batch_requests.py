"""Batches over the HTTP API: one bad image does not affect the others, and all of them together have limits."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from asgi import Reply, ask, form
from serve_backend import Fake, app, encoded, scene, wall
from serve_requests import API, PHOTO, post, refused

from serve.backend import Overloaded


def batch(*images: bytes, to: Any = API, query: str = "") -> Reply:
    body, headers = form(*(("image", image) for image in images))
    return ask(to, "POST", f"/v1/depth:batch{query}", body=body, headers=headers)


def unpacked(reply: Reply) -> tuple[list[dict[str, Any]], zipfile.ZipFile]:
    assert reply.status == 200 and reply.kind == "application/zip", reply.body[:300]
    archive = zipfile.ZipFile(io.BytesIO(reply.body))
    return json.loads(archive.read("index.json"))["images"], archive


def test_one_bad_image_among_fifteen_good() -> None:
    sizes = [(16 + number, 40 - number) for number in range(16)]
    images = [encoded(scene(*size)) for size in sizes]
    images[5] = images[5][:60]
    entries, archive = unpacked(batch(*images, query="?format=npy"))
    assert [entry["status"] for entry in entries] == [400 if place == 5 else 200 for place in range(16)]
    assert entries[5]["problem"]["detail"].startswith("image: damaged")
    for entry, size in zip(entries, sizes, strict=True):
        if entry["status"] == 200:
            assert (np.load(io.BytesIO(archive.read(entry["file"]))) == wall(scene(*size))).all()
            assert entry["headers"]["X-Model"] == "room@0123456789ab"


def test_a_network_that_fails_for_one_of_a_batch() -> None:
    class Picky(Fake):
        async def predict(self, model: str, rgb: np.ndarray, *rest: Any, **more: Any) -> Any:
            if rgb.shape[0] == 20:
                raise RuntimeError("secret")
            return await super().predict(model, rgb, *rest, **more)

    entries, _ = unpacked(batch(encoded(scene(20, 20)), PHOTO, PHOTO, to=app(Picky())))
    assert [entry["status"] for entry in entries] == [500, 200, 200] and "secret" not in str(entries)


def test_a_batch_has_limits_for_all_its_images() -> None:
    api = app(limits={"batch_images": 3, "batch_pixels": 4000, "body_bytes": 100_000})
    entries, _ = unpacked(batch(PHOTO, PHOTO, PHOTO, to=api))  # 1536 pixels each
    assert [entry["status"] for entry in entries] == [200, 200, 422]
    refused(batch(*[PHOTO] * 4, to=api), 422, "1 to 3")
    refused(batch(*[bytes(40_000)] * 3, to=api), 413)


def test_a_batch_without_any_answer() -> None:
    fake = Fake()
    fake.fault = Overloaded(retry_after=3)
    reply = batch(PHOTO, PHOTO, to=app(fake))
    refused(reply, 429)
    assert reply.headers["retry-after"] == "3"
    refused(batch(PHOTO, query="?model=none"), 404)
    refused(batch(PHOTO, query="?model=../x"), 404)
    refused(batch(PHOTO, query="?model=room&model=room"), 400)
    refused(post(path="/v1/depth:batch"), 415)
    refused(batch(), 422)
