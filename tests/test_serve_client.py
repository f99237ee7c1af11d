"""The client of a depth server: what it sends, what it makes of answers, and when it tries again."""

from __future__ import annotations

import asyncio
import io
import struct
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import cv2
import numpy as np
import pytest

httpx = pytest.importorskip("httpx")

from serve_fake import Fake, Wall, busy, problem, running, wall  # noqa: E402
from starlette.responses import PlainTextResponse, Response  # noqa: E402

from depthray import export  # noqa: E402
from depthray.errors import DataError, ResourceError, UsageError  # noqa: E402
from serve import api, auth, remote  # noqa: E402
from serve.client import (  # noqa: E402
    AsyncDepthClient,
    DepthClient,
    Patience,
    RefusedError,
    ServerError,
    UnavailableError,
)
from serve.settings import Settings  # noqa: E402

QUICK = Patience(tries=4, first=0.01, longest=1.0)
RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def url(fake: Fake) -> Iterator[str]:
    with running(fake.app) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[DepthClient]:
    with DepthClient(url, patience=QUICK) as made:
        yield made


def answering(answer: Callable[[httpx.Request], httpx.Response], *, patience: Patience = QUICK) -> DepthClient:
    return DepthClient("http://depth.test", patience=patience, transport=httpx.MockTransport(answer))


def png(rgb: np.ndarray = RGB) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_an_array_a_file_and_its_bytes_give_the_same_metres(client: DepthClient, tmp_path: Path) -> None:
    (tmp_path / "room.png").write_bytes(png())
    for picture in (RGB, tmp_path / "room.png", str(tmp_path / "room.png"), png()):
        estimate = client.predict(picture)
        assert estimate.metres.dtype == np.float32
        np.testing.assert_array_equal(estimate.metres, wall(RGB))


def test_what_the_server_tells_beside_the_map_is_kept(client: DepthClient) -> None:
    estimate = client.predict(RGB)
    assert (estimate.model, estimate.input_size) == ("room@0123456789ab", "320x240")
    assert estimate.request_id == "request-1"
    assert estimate.timings == {"decode": 0.0015, "model": 0.02}


def test_points_are_those_of_export_with_the_picture_s_colours(client: DepthClient) -> None:
    camera = export.Camera(30.0, 31.0, 9.0, 6.0)
    estimate = client.predict(RGB)
    expected = export.points(wall(RGB), RGB, camera=camera)
    np.testing.assert_array_equal(estimate.points(camera), expected)
    narrow, wide = (np.ptp(estimate.points(degrees=degrees)["xyz"][:, 0]) for degrees in (40, 80))
    assert wide > 2 * narrow
    assert len(expected) == RGB.shape[0] * RGB.shape[1]


def test_maps_brings_the_mask_as_well(client: DepthClient) -> None:
    maps = client.maps(RGB).maps
    assert set(maps) == {"depth", "mask"}
    np.testing.assert_array_equal(maps["mask"], wall(RGB) < 2)


@pytest.mark.parametrize(
    "form, start",
    [("png", b"\x89PNG"), ("npy", b"\x93NUMPY"), ("ply", b"ply\n"), ("glb", b"glTF"), ("colour", b"\x89PNG")],
)
def test_fetch_gives_the_file(client: DepthClient, fake: Fake, form: str, start: bytes) -> None:
    assert client.fetch(RGB, form, query={"fov": 70.0}).startswith(start)
    assert fake.seen[-1][1] == {"fov": "70.0", "format": form}


def test_a_fetched_png_is_metres_to_the_millimetre(client: DepthClient) -> None:
    stored = cv2.imdecode(np.frombuffer(client.fetch(RGB, "png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert np.abs(stored / 1000 - wall(RGB)).max() <= 0.0005001


def test_the_body_is_the_picture_and_the_type_its_own(client: DepthClient, fake: Fake) -> None:
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
    with pytest.raises(UsageError, match="no name of a model"):
        client.predict(RGB, model=model)
    assert not fake.seen


def test_models_and_readiness(client: DepthClient) -> None:
    assert [card["name"] for card in client.models()] == ["room", "sparse-room"]
    assert client.models()[1]["inputs"] == ["image", "sparse"]
    assert client.ready()
    assert not answering(lambda request: httpx.Response(503)).ready()


def test_a_busy_server_is_tried_again(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(), problem(503, "loading"), PlainTextResponse("timed out", 408)]
    assert client.predict(RGB).metres.shape == (12, 20)
    assert len(fake.seen) == 4
    fake.faults = [PlainTextResponse("Internal Server Error", 500)]  # of Ray's proxy when an ingress dies
    assert client.predict(RGB).metres.shape == (12, 20)


def test_the_wait_is_what_the_server_asks_for(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(after="0.3")]
    before = time.monotonic()
    client.predict(RGB)
    assert 0.3 <= time.monotonic() - before < 1.5


def test_a_date_to_wait_for_is_understood(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(after=formatdate(time.time() + 3600, usegmt=True))]
    with pytest.raises(UnavailableError):  # longer than we are willing to wait
        client.predict(RGB)
    assert len(fake.seen) == 1
    fake.faults = [busy(after=formatdate(time.time() - 3600, usegmt=True)), busy(after="soon")]
    client.predict(RGB)
    assert len(fake.seen) == 4


def test_tries_come_to_an_end(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy() for _ in range(10)]
    with pytest.raises(UnavailableError, match=r"/v1/depth: 429: queue is full") as caught:
        client.predict(RGB)
    assert caught.value.status == 429
    assert isinstance(caught.value, ResourceError)
    assert len(fake.seen) == QUICK.tries


def test_waits_double_and_never_beat_what_was_asked() -> None:
    patience = Patience(tries=9, first=1.0, longest=8.0)
    for failures, most in ((1, 1), (2, 2), (3, 4), (4, 8), (8, 8)):
        waits = [patience.wait(failures, 0.0) for _ in range(200)]
        assert most / 2 <= min(waits) and max(waits) <= most
        assert max(waits) - min(waits) > most / 8  # clients that failed together do not come back together
    assert min(patience.wait(1, 5.0) for _ in range(50)) >= 5.0


@pytest.mark.parametrize("status", [400, 404, 406, 413, 415, 422])
def test_a_refusal_is_final_and_says_why(client: DepthClient, fake: Fake, status: int) -> None:
    fake.faults = [problem(status, "the picture is too wide", **{"X-Request-ID": "r7"})]
    with pytest.raises(RefusedError, match="the picture is too wide") as caught:
        client.predict(RGB)
    assert isinstance(caught.value, DataError)
    assert (caught.value.status, caught.value.request_id) == (status, "r7")
    assert len(fake.seen) == 1


def test_a_failure_of_the_server_is_not_repeated(client: DepthClient, fake: Fake) -> None:
    fake.faults = [problem(500, "an error on our side")]
    with pytest.raises(ServerError, match="an error on our side") as caught:
        client.predict(RGB)
    assert not isinstance(caught.value, DataError | ResourceError)
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    "response, message",
    [
        (PlainTextResponse("Path not found.\nPing /-/routes", 404), "404: Path not found. Ping /-/routes"),
        (Response(b"<html><h1>Bad gateway", 400, media_type="text/html"), "400: Bad Request"),
        (Response(b"{not json", 400, media_type="application/problem+json"), "400: Bad Request"),
        (Response(b"[1]", 400, media_type="application/json"), "400: Bad Request"),
        (PlainTextResponse("\x1b[31mred\x07", 400), r"\?\[31mred\?"),
        (PlainTextResponse("x" * 100_000, 400), "x{300}$"),
    ],
)
def test_any_error_body_becomes_one_printable_line(
    client: DepthClient, fake: Fake, response: Response, message: str
) -> None:
    fake.faults = [response]
    with pytest.raises(RefusedError, match=message) as caught:
        client.predict(RGB)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_key_opens_the_door() -> None:
    with running(Fake(key="s3cret").app) as url:
        with DepthClient(url, key="s3cret") as client:
            assert client.predict(RGB).metres.shape == (12, 20)
        for key in ("", "wrong"):
            with DepthClient(url, key=key) as client, pytest.raises(RefusedError, match="give the client its key"):
                client.predict(RGB)


def test_nobody_there_is_said_after_the_tries() -> None:
    tries = []

    def refuse(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("connection refused")

    with pytest.raises(UnavailableError, match="http://depth.test does not answer: connection refused") as caught:
        answering(refuse).predict(RGB)
    assert caught.value.status == 0 and len(tries) == QUICK.tries


def test_a_lost_connection_is_made_again() -> None:
    outcomes = [httpx.ReadError("reset"), httpx.RemoteProtocolError("cut"), httpx.Response(200, content=npy(wall(RGB)))]

    def answer(request: httpx.Request) -> httpx.Response:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    np.testing.assert_array_equal(answering(answer).predict(RGB).metres, wall(RGB))


def test_a_slow_server_runs_into_the_timeout(url: str, fake: Fake) -> None:
    fake.faults = [0.5]
    with (
        DepthClient(url, timeout=0.1, patience=Patience(tries=1)) as client,
        pytest.raises(UnavailableError, match="timed out"),
    ):
        client.predict(RGB)


def test_an_answer_that_is_no_map_is_said_so() -> None:
    hostile = npy(np.zeros((2, 2)))[:40]
    pickled = io.BytesIO()
    np.save(pickled, np.array([[{}]], dtype=object), allow_pickle=True)
    for content in (b"", b"<html>", hostile, npy(np.zeros(3)), npy(np.zeros((2, 2), int)), pickled.getvalue()):
        with pytest.raises(ServerError, match="no depth map"):
            answering(lambda request, content=content: httpx.Response(200, content=content)).predict(RGB)
    archive = b"PK\x03\x04" + struct.pack("<20x")
    with pytest.raises(ServerError, match="no depth map"):
        answering(lambda request: httpx.Response(200, content=archive)).maps(RGB)


def test_something_else_than_a_depth_server_is_noticed() -> None:
    for content in (b"hello", b"{}", b'{"models": 3}', b'[{"id": "gpt"}]'):
        with pytest.raises(ServerError, match="is it a depth server"):
            answering(lambda request, content=content: httpx.Response(200, content=content)).models()


def test_a_model_without_depth_says_what_it_gives() -> None:
    file = io.BytesIO()
    np.savez(file, mask=np.ones((12, 20), np.float32))
    estimate = answering(lambda request: httpx.Response(200, content=file.getvalue())).maps(RGB)
    with pytest.raises(UsageError, match="gives mask, no depth"):
        estimate.metres  # noqa: B018


def test_wrong_use_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    client = answering(lambda request: pytest.fail("sent"))
    with pytest.raises(DataError, match="missing.jpg: cannot be read"):
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
        async with AsyncDepthClient("http://depth.test", patience=QUICK, transport=transport) as client:
            assert await client.ready()
            assert len(await client.models()) == 2
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
        async with AsyncDepthClient("http://depth.test", patience=QUICK, transport=transport) as client:
            slow = asyncio.create_task(client.predict(RGB))
            await asyncio.sleep(0.05)
            assert not slow.done()
            await client.predict(RGB)
            assert not slow.done()
            return (await slow).model

    assert asyncio.run(race()) == "room@0123456789ab"


@pytest.fixture
def real() -> Iterator[DepthClient]:
    """A client of the true API, but for the network."""
    app = api.create(Wall(), Settings(), keys=auth.Keys(["k" * 20]), name_ids=True)
    with running(app) as url, DepthClient(url, key="k" * 20, patience=QUICK) as client:
        yield client


def test_the_true_api_is_understood(real: DepthClient) -> None:
    estimate = real.predict(RGB)
    np.testing.assert_array_equal(estimate.metres, wall(RGB))
    assert (estimate.model, estimate.input_size, estimate.timings["model"]) == ("room@0123456789ab", "320x240", 0.5)
    assert len(estimate.request_id) == 32
    assert set(real.maps(RGB, model="room@0123456789ab").maps) == {"depth", "mask"}
    assert real.ready() and real.models()[0]["inputs"] == ["image"]
    sparse = np.full((12, 20), 1.5, np.float32)
    np.testing.assert_array_equal(real.predict(RGB, sparse=sparse).metres, sparse)


def test_the_true_api_s_files_and_points_agree_with_ours(real: DepthClient) -> None:
    ours = export.points(wall(RGB), RGB, camera=export.assumed_camera(12, 20, degrees=75))
    cloud = real.fetch(RGB, "ply", query={"fov": 75})
    assert cloud.endswith(ours.tobytes())
    np.testing.assert_array_equal(real.predict(RGB).points(degrees=75), ours)


def test_the_true_api_s_refusals_are_told(real: DepthClient) -> None:
    for message, call in (
        ("no such model", lambda: real.predict(RGB, model="hall")),
        ("JPEG, PNG or WebP", lambda: real.predict(b"GIF89a" + bytes(50))),
        ("unknown parameter 'fvo'", lambda: real.fetch(RGB, "ply", query={"fvo": 60})),
        ("sparse is 9x9", lambda: real.predict(RGB, sparse=np.ones((9, 9), np.float32))),
    ):
        with pytest.raises(RefusedError, match=message):
            call()


def test_a_bad_picture_of_a_batch_is_an_error_in_its_place(real: DepthClient) -> None:
    first, bad, last = real.batch([RGB, png()[:60], RGB[::-1].copy()], model="room")
    np.testing.assert_array_equal(first.metres, wall(RGB))
    np.testing.assert_array_equal(last.metres, wall(RGB[::-1]))
    assert first.model == "room@0123456789ab" and len(last.points()) == 240
    assert isinstance(bad, RefusedError) and bad.status == 400 and "damaged" in str(bad)
    sparse = [np.full((12, 20), metres, np.float32) for metres in (1, 2)]
    assert [each.metres.max() for each in real.batch([RGB, RGB], sparse=sparse)] == [1, 2]
    with pytest.raises(UsageError, match="1 sparse for 2 pictures"):
        real.batch([RGB, RGB], sparse=sparse[:1])


def test_a_batch_that_is_none_is_said_so() -> None:
    for content in (b"", b"PK", b"{}"):
        with pytest.raises(ServerError, match="no batch"):
            answering(lambda request, content=content: httpx.Response(200, content=content)).batch([RGB])


def test_a_server_stands_in_for_a_checkpoint() -> None:
    app = api.create(Wall(), Settings(), keys=auth.Keys(["k" * 20]))
    with running(app) as url:
        with remote.connected(url, key="k" * 20) as predictor:
            assert predictor.inputs == ("image",)
            np.testing.assert_array_equal(predictor.maps(RGB)["depth"], wall(RGB))
        with remote.connected(url, key="k" * 20, model="room") as predictor:
            assert predictor.name == "room"
        for words, fault, message in (
            ({"key": "k" * 20, "model": "rom"}, UsageError, r"no model 'rom' there \(did you mean 'room'\?\)"),
            ({}, RefusedError, "401"),
        ):
            with pytest.raises(fault, match=message), remote.connected(url, **words):
                pass
