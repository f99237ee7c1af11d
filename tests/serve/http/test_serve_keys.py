"""Keys of the HTTP API: which are accepted, what needs none, and where they are read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asgi import ask
from serve_backend import app
from serve_requests import post, refused

from depthray.errors import UsageError
from serve.http import auth

KEY, OTHER = "k" * 32, "another-key-of-the-service"
LOCKED = app(None, KEY, OTHER)
GATES: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "wrong": [("Authorization", "Bearer wrong")],
    "empty": [("Authorization", "")],
    "bearer without a key": [("Authorization", "Bearer ")],
    "bearer alone": [("Authorization", "Bearer")],
    "basic": [("Authorization", f"Basic {KEY}")],
    "key alone": [("Authorization", KEY)],
    "two headers": [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
    "two kinds": [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)],
    "another case": [("Authorization", f"Bearer {KEY.upper()}")],
    "the beginning": [("Authorization", f"Bearer {KEY[:-1]}")],
    "more": [("Authorization", f"Bearer {KEY}x")],
    "a megabyte": [("Authorization", "Bearer " + KEY * 32_768)],
    "no ASCII": [("Authorization", "Bearer \xff\xfe")],
    "empty key": [("X-API-Key", "")],
}


@pytest.mark.parametrize("headers", GATES.values(), ids=GATES)
@pytest.mark.parametrize("path", ["/v1/depth", "/v1/models/room/depth", "/v1/depth:batch"])
def test_keys_that_do_not_open(headers: list[tuple[str, str]], path: str) -> None:
    def forbidden() -> Any:
        pytest.fail("the body was read before the key was checked")
        yield b""

    reply = ask(LOCKED, "POST", path, body=forbidden(), headers=headers)
    refused(reply, 401)
    assert reply.headers["www-authenticate"].startswith("Bearer") and KEY not in reply.body.decode()


@pytest.mark.parametrize(
    "header", [("Authorization", f"Bearer {KEY}"), ("authorization", f"bearer  {OTHER} "), ("X-API-Key", OTHER)]
)
def test_keys_that_open(header: tuple[str, str]) -> None:
    assert post(to=LOCKED, headers=[header]).status == 200


def test_what_needs_no_key() -> None:
    for path in ("/", "/page/page.js", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert ask(LOCKED, "GET", path).status == 200
    for path in ("/v1/models", "/v1/models/room"):
        refused(ask(LOCKED, "GET", path), 401)


def test_keys_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the robots\n{KEY}\n\n  {OTHER}  \n")
    keys = auth.load(file, environment={auth.VARIABLE: f"{'e' * 20}, {'f' * 20}"})
    for key in (KEY, OTHER, "e" * 20, "f" * 20):
        keys.check(_headers(key))
    assert not auth.load(None, environment={}) and "kkkk" not in repr(vars(keys))


def _headers(key: str) -> Any:
    from starlette.datastructures import Headers

    return Headers({"x-api-key": key})


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "two words that are long enough\n", "é" * 20 + "\n"])
def test_key_files_that_hold_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        auth.load(file, environment={})
    assert str(file) in str(caught.value) and not (text.strip() and text.strip() in str(caught.value))
    with pytest.raises(UsageError, match="cannot be read"):
        auth.load(tmp_path / "none", environment={})
