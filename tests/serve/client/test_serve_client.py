"""The client of a depth server: its requests, and how it reads the answers."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from paths import ROOT
from serve_clients import QUICK, RGB, answering, npy, png
from serve_fake import Fake, busy, wall

from depthray import client as current
from depthray.client import AsyncDepthClient, DepthClient, ServerError
from depthray.errors import DataError, UsageError
from depthray.imaging import export
from depthray.imaging.camera import Camera
from serve import client as former


def content_of(content: bytes) -> Callable[[httpx.Request], httpx.Response]:
    """A server whose every answer is this content."""
    return lambda request: httpx.Response(200, content=content)


def test_an_array_a_file_and_its_bytes_give_the_same_metres(client: DepthClient, tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(png())
    for image in (RGB, tmp_path / "room.png", str(tmp_path / "room.png"), png()):
        estimate = client.predict(image)
        assert estimate.metres.dtype == np.float32
        np.testing.assert_array_equal(estimate.metres, wall(RGB))


def test_the_headers_of_the_answer_are_kept(client: DepthClient) -> None:
    estimate = client.predict(RGB)
    assert (estimate.model, estimate.input_size) == ("room@0123456789ab", "320x240")
    assert estimate.request_id == "request-1"
    assert estimate.timings == {"decode": 0.0015, "model": 0.02}


def test_points_are_those_of_export_with_the_colours_of_the_image(client: DepthClient) -> None:
    camera = Camera(30.0, 31.0, 9.0, 6.0)
    estimate = client.predict(RGB)
    expected = export.points(wall(RGB), RGB, camera=camera)
    np.testing.assert_array_equal(estimate.points(camera), expected)
    narrow, wide = (np.ptp(estimate.points(degrees=degrees)["xyz"][:, 0]) for degrees in (40, 80))
    assert wide > 2 * narrow
    assert len(expected) == RGB.shape[0] * RGB.shape[1]


def test_maps_includes_the_mask(client: DepthClient) -> None:
    maps = client.maps(RGB).maps
    assert set(maps) == {"depth", "mask"}
    np.testing.assert_array_equal(maps["mask"], wall(RGB) < 2)


@pytest.mark.parametrize(
    ("form", "start"),
    [("png", b"\x89PNG"), ("npy", b"\x93NUMPY"), ("ply", b"ply\n"), ("glb", b"glTF"), ("colour", b"\x89PNG")],
)
def test_fetch_gives_the_file(client: DepthClient, fake: Fake, form: str, start: bytes) -> None:
    assert client.fetch(RGB, form, query={"fov": 70.0}).startswith(start)
    assert fake.seen[-1][1] == {"fov": "70.0", "format": form}


def test_a_downloaded_png_is_metres_to_the_millimetre(client: DepthClient) -> None:
    stored = cv2.imdecode(np.frombuffer(client.fetch(RGB, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert np.abs(stored / 1000 - wall(RGB)).max() <= 0.0005001


def test_the_body_is_the_image_with_its_own_type(client: DepthClient, fake: Fake) -> None:
    for suffix, kind in ((".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp")):
        client.predict(cv2.imencode(suffix, RGB)[1].tobytes())
        path, query, headers = fake.seen[-1]
        assert (path, query, headers["content-type"]) == ("/v1/depth", {"format": "npy"}, kind)


def test_a_model_and_its_further_inputs_are_sent(client: DepthClient, fake: Fake) -> None:
    sparse = np.where(RGB[..., 0] > 200, 1.5, 0).astype(np.float32)
    client.predict(RGB, model="sparse-room@0123", size="model", sparse=sparse)
    path, query, headers = fake.seen[-1]
    assert path == "/v1/models/sparse-room@0123/depth"
    assert query == {"format": "npy", "size": "model"}
    assert headers["content-type"].startswith("multipart/form-data")


def test_further_inputs_arrive_as_they_were() -> None:
    bodies = []

    def keep(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(200, content=npy(wall(RGB)))

    sparse = np.linspace(0, 3, 240, dtype=np.float32).reshape(12, 20)
    answering(keep).predict(RGB, sparse=sparse, background=RGB[::-1])
    assert npy(sparse) in bodies[0] and png(RGB[::-1])[:8] in bodies[0]
    assert all(f'name="{name}"'.encode() in bodies[0] for name in ("image", "sparse", "background"))


@pytest.mark.parametrize("model", ["..", "../../etc/passwd", "a/b", "Room", "room?x=1", "room@", "room\n", "%2e%2e"])
def test_only_a_name_of_a_model_gets_into_the_path(client: DepthClient, fake: Fake, model: str) -> None:
    with pytest.raises(UsageError, match="not the name of a model"):
        client.predict(RGB, model=model)
    assert not fake.seen


def test_models_and_readiness(client: DepthClient) -> None:
    assert [card["name"] for card in client.models()] == ["room", "sparse-room", "any-camera"]
    assert client.models()[1]["inputs"] == ["image", "sparse"]
    assert client.ready()
    assert not answering(lambda request: httpx.Response(503)).ready()


def test_an_answer_that_is_no_map_is_reported() -> None:
    hostile = npy(np.zeros((2, 2)))[:40]
    pickled = io.BytesIO()
    np.save(pickled, np.array([[{}]], dtype=object), allow_pickle=True)
    for content in (b"", b"<html>", hostile, npy(np.zeros(3)), npy(np.zeros((2, 2), int)), pickled.getvalue()):
        with pytest.raises(ServerError, match="no depth map"):
            answering(content_of(content)).predict(RGB)
    archive = b"PK\x03\x04" + struct.pack("<20x")
    with pytest.raises(ServerError, match="no depth map"):
        answering(lambda request: httpx.Response(200, content=archive)).maps(RGB)


def test_a_server_of_something_else_is_reported() -> None:
    for content in (b"hello", b"{}", b'{"models": 3}', b'[{"id": "gpt"}]'):
        with pytest.raises(ServerError, match="is it a depth server"):
            answering(content_of(content)).models()


def test_the_error_of_a_model_without_depth_names_its_maps() -> None:
    file = io.BytesIO()
    np.savez(file, mask=np.ones((12, 20), np.float32))
    estimate = answering(lambda request: httpx.Response(200, content=file.getvalue())).maps(RGB)
    with pytest.raises(UsageError, match="predicts mask, no depth"):
        estimate.metres  # noqa: B018


def test_wrong_arguments_are_reported_before_anything_is_sent(tmp_path: Path) -> None:
    client = answering(lambda request: pytest.fail("sent"))
    with pytest.raises(DataError, match=r"missing\.jpg: cannot be read"):
        client.predict(tmp_path / "missing.jpg")
    for array in (RGB[..., 0], RGB.astype(np.float32), RGB[:0]):
        with pytest.raises(DataError, match="uint8 RGB"):
            client.predict(array)
    for url in ("localhost:8000", "ftp://x", "http://[::1"):
        with pytest.raises(UsageError, match="address"):
            DepthClient(url)


def test_points_of_the_network_s_own_map_are_refused() -> None:
    small = answering(lambda request: httpx.Response(200, content=npy(np.ones((3, 5), np.float32))))
    with pytest.raises(UsageError, match="size='model'"):
        small.predict(RGB, size="model").points()


def test_awaited_clients_do_the_same_side_by_side() -> None:
    fake = Fake()
    fake.faults = [busy(), busy()]

    async def many() -> list[np.ndarray]:
        transport = httpx.ASGITransport(app=fake.app)
        async with AsyncDepthClient("http://depth.test", retry=QUICK, transport=transport) as client:
            assert await client.ready()
            assert len(await client.models()) == 3
            assert (await client.fetch(RGB, "glb")).startswith(b"glTF")
            assert set((await client.maps(RGB)).maps) == {"depth", "mask"}
            estimates = await asyncio.gather(*(client.predict(RGB) for _ in range(4)))
            return [estimate.metres for estimate in estimates]

    for metres in asyncio.run(many()):
        np.testing.assert_array_equal(metres, wall(RGB))
    assert len(fake.seen) == 8


def test_an_awaited_wait_lets_others_work(fake: Fake) -> None:
    fake.faults = [busy(after="0.2")]

    async def race() -> str:
        transport = httpx.ASGITransport(app=fake.app)
        async with AsyncDepthClient("http://depth.test", retry=QUICK, transport=transport) as client:
            slow = asyncio.create_task(client.predict(RGB))
            await asyncio.sleep(0.05)
            assert not slow.done()
            await client.predict(RGB)
            assert not slow.done()
            return (await slow).model

    assert asyncio.run(race()) == "room@0123456789ab"


def test_a_reply_that_is_no_batch_is_reported() -> None:
    for content in (b"", b"PK", b"{}"):
        with pytest.raises(ServerError, match="no batch"):
            answering(content_of(content)).batch([RGB])


def test_the_client_needs_neither_ray_nor_the_server(tmp_path: Path) -> None:
    """So a file serve.py of one's own beside the script does it no harm."""
    (tmp_path / "serve.py").write_text("raise SystemExit('the user's own file')")
    code = (
        "import sys; sys.modules['ray'] = None; from depthray.client import DepthClient, RefusedError; "
        "assert not {'torch', 'serve'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_client_has_its_former_name_too() -> None:
    assert former.__all__ == current.__all__
    assert former.DepthClient is DepthClient
