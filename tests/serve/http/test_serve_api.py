"""The HTTP API over a fake backend: the contract, its parameters, and faults of the backend."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import cv2
import numpy as np
import pytest
from asgi import Reply, ask, call, form
from serve_backend import Fake, app, encoded, npy, npz, scene, wall
from serve_requests import API, PHOTO, depth, post, refused

from serve.backend import Broken, NotReady, Overloaded, TimedOut

# ---- The contract ----------------------------------------------------------------------------------------------------


def test_an_image_gives_millimetres() -> None:
    reply = post()
    stored = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert reply.status == 200 and reply.kind == "image/png" and stored.dtype == np.uint16
    assert np.abs(stored / 1000 - wall(scene())).max() <= 0.0005001
    expected = {"x-depth-unit": "mm", "x-depth-scale": "0.001", "x-model": "room@0123456789ab"}
    assert expected.items() <= reply.headers.items()
    assert reply.headers["x-model-input-size"] == "32x24" and reply.headers["cache-control"] == "no-store"
    stages = {part.split(";")[0].strip() for part in reply.headers["server-timing"].split(",")}
    assert {"decode", "queue", "model", "encode"} <= stages


def test_what_curl_sends_by_default() -> None:
    assert post(kind="application/x-www-form-urlencoded", headers=[("Accept", "*/*")]).status == 200


@pytest.mark.parametrize("form_name", ["png", "npy", "npz", "colour", "ply", "glb"])
def test_formats(form_name: str) -> None:
    assert post(path=f"/v1/depth?format={form_name}").status == 200


def test_models_by_name_and_version_and_native_size() -> None:
    fake = Fake()
    api = app(fake)
    assert post(to=api, path="/v1/models/room@0123456789ab/depth?size=model&format=npy").status == 200
    assert fake.seen[0][0] == "room@0123456789ab" and fake.seen[0][3]


def test_further_inputs_reach_the_model_and_missing_ones_are_named() -> None:
    fake = Fake()
    sparse = np.full((32, 48), 2.0, np.float32)
    body, headers = form(("image", PHOTO), ("sparse", npy(sparse)))
    assert ask(app(fake), "POST", "/v1/models/completion/depth", body=body, headers=headers).status == 200
    assert (fake.seen[0][2]["sparse"] == sparse).all()
    refused(post(path="/v1/models/completion/depth"), 422, "needs sparse")
    archive = post(npz(image=scene(), background=scene()), "application/x-npz", path="/v1/models/cutout/depth")
    assert archive.status == 200 and archive.headers["x-plane"] == "mask"


def test_lists_of_models() -> None:
    tree = ask(API, "GET", "/v1/models").tree
    assert [card["name"] for card in tree["models"]] == ["room", "completion", "cutout"]
    assert tree["models"][0]["default"] and tree["models"][1]["inputs"] == ["image", "sparse"]
    assert tree["limits"]["pixels"] == 25_000_000
    assert ask(API, "GET", "/v1/models/room").tree["id"] == "room@0123456789ab"
    refused(ask(API, "GET", "/v1/models/none"), 404)


def test_health() -> None:
    fake = Fake()
    assert ask(app(fake), "GET", "/v2/health/live").tree == {"live": True}
    for up, status in ((True, 200), (False, 503), (NotReady("loading"), 503)):
        fake.up = up
        assert ask(app(fake), "GET", "/v2/health/ready").status == status


def test_documentation_needs_no_other_server() -> None:
    tree = ask(API, "GET", "/openapi.json").tree
    assert {"/v1/depth", "/v1/models/{name}/depth", "/v1/depth:batch", "/v1/models"} <= {*tree["paths"]}
    page = ask(API, "GET", "/docs").body.decode()
    assert "POST /v1/depth" in page and "fov" in page and "http" not in page and "<script" not in page


def test_the_page_and_its_files() -> None:
    start = ask(API, "GET", "/")
    assert start.status == 200 and b"<html" in start.body and start.headers["x-frame-options"] == "DENY"
    assert ask(API, "GET", "/page/page.js").status == 200
    for path in ("/page/../api.py", "/page/%2e%2e/api.py", "/page//etc/passwd", "/page/none"):
        assert ask(API, "GET", path).status == 404
    assert ask(app(page=False), "GET", "/").status == 404


def test_request_ids() -> None:
    assert post(headers=[("X-Request-ID", "abc-1")]).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>", ""):
        given = post(headers=[("X-Request-ID", bad)]).headers["x-request-id"]
        assert given != bad and len(given) == 32


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/depth", 405), ("POST", "/nothing", 404)])
def test_wrong_addresses(method: str, path: str, status: int) -> None:
    refused(ask(API, method, path), status, "/docs")


# ---- Parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("fx=-1", 422),
        ("fx=NaN", 400),
        ("cmap=../../etc/passwd", 400),
        ("fov=60&fov=61", 400),
        ("fov=%00", 400),
        ("fov=%F0%9F%98%80", 400),
        ("fov=%ff%fe", 400),
        ("x" * 2**20, 400),
        ("&".join(f"a{number}=1" for number in range(600)), 400),
        ("url=http://169.254.169.254/", 400),
        ("path=/etc/passwd", 400),
        ("fov", 200),
        ("&&&", 200),
    ],
)
def test_queries(query: str, status: int) -> None:
    reply = post(path=f"/v1/depth?{query}")
    assert reply.status == status or (query == "fov" and reply.status in (200, 400))
    if reply.status != 200:
        refused(reply, reply.status)


@pytest.mark.parametrize(
    ("accept", "status"), [("*/*", 200), ("", 200), ("text/html", 406), ("image/webp;q=0.1, */*;q=0", 200)]
)
def test_accept_headers(accept: str, status: int) -> None:
    assert post(headers=[("Accept", accept)]).status == status


@pytest.mark.parametrize(
    "name",
    ["../x", "%2e%2e", "..", "%2e%2e%2fetc%2fpasswd", "/etc/passwd", "x" * 10_240, "%F0%9F%98%80", "", "ROOM", "room@",
     "room@%2e%2e", "room@ffffffffffff", "none", "room%00", "-room", "room@a@b"],
)  # fmt: skip
def test_model_names(name: str) -> None:
    refused(post(path=f"/v1/models/{name}/depth"), 404)


# ---- Faults behind it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "after"),
    [
        (Overloaded(retry_after=2.4), 429, "2"),
        (Overloaded(retry_after=0.1), 429, "1"),
        (NotReady("the model is loading", retry_after=5), 503, "5"),
        (TimedOut("late"), 504, None),
        (TimeoutError(), 504, None),
        (Broken("CUDA error at /root/x.py 0xdead"), 500, None),
        (RuntimeError("secret /root/x.py 0xdead"), 500, None),
        (KeyError("secret"), 500, None),
        (lambda rgb: np.full(rgb.shape[:2], np.nan, np.float32), 500, None),
    ],
)
def test_faults_of_the_backend(fault: Any, status: int, after: str | None, caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    fake.fault = fault
    reply = post(to=app(fake))
    tree = refused(reply, status)
    assert reply.headers.get("retry-after") == after
    if status == 500:
        assert "secret" not in reply.body.decode() and tree["instance"]
    if isinstance(fault, RuntimeError):
        assert reply.headers["x-request-id"] in caplog.text and "secret" in caplog.text


def test_a_backend_that_never_answers() -> None:
    class Stuck(Fake):
        async def predict(self, *_: Any, **__: Any) -> Any:
            await asyncio.sleep(60)

    start = time.perf_counter()
    refused(post(to=app(Stuck(), timeout_seconds=0.1)), 504)
    assert time.perf_counter() - start < 10


def test_many_at_once_do_not_mix() -> None:
    images = [encoded(np.full((16, 16 + number, 3), number * 5, np.uint8)) for number in range(24)]

    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(call(API, "POST", "/v1/depth?format=npy", body=data) for data in images))

    for number, reply in enumerate(asyncio.run(all_of_them())):
        assert (depth(reply) == wall(np.full((16, 16 + number, 3), number * 5, np.uint8))).all()
