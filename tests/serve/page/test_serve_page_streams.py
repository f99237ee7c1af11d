"""Videos and cameras on the page of a depth server, in a real headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from chromium import PHONE
from page_actions import HEIGHT, WIDTH, Open, canvas_of, until
from serve_fake import Fake, problem, wall
from videos import write_video

from depthray.imaging import sheets

if TYPE_CHECKING:
    from playwright import sync_api

GREY, RED = (120, 120, 120), (250, 20, 20)
ENDED = "document.getElementById('toggle').textContent === 'Start'"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey half second, of 2 m to 4 m for the fake server, and a red one, which is 1 m nearer."""
    frames = [np.full((HEIGHT, WIDTH, 3), GREY if number < 5 else RED, np.uint8) for number in range(10)]
    return write_video(tmp_path_factory.mktemp("clip") / "walk.webm", frames)


def ends_of(page: sync_api.Page) -> list[float]:
    """Metres of the first and the last colour."""
    return [float(page.input_value(f"#stream-{name}")) for name in ("near", "far")]


def check_colours(page: sync_api.Page, rgb: tuple[int, int, int]) -> None:
    """Assert that the frame is of one colour, and its depth what the server estimates, in the colours shown."""
    shown = canvas_of(page, "stream-image")
    assert shown.shape == (HEIGHT, WIDTH, 3) and np.abs(shown - np.array(rgb)).mean() < 8
    near, far = ends_of(page)
    expected = sheets.colour_depth(wall(np.full((HEIGHT, WIDTH, 3), rgb, np.uint8)), near=near, far=far).astype(int)
    assert np.abs(canvas_of(page, "stream-depth") - expected).mean() < 6


def test_the_frames_of_a_video_share_one_colour_scale(show: Open, fake: Fake, clip: Path) -> None:
    page = show()
    active, most = 0, 0

    def began(request: sync_api.Request) -> None:
        nonlocal active, most
        active += "/depth?" in request.url
        most = max(most, active)

    def ended(request: sync_api.Request) -> None:
        nonlocal active
        active -= "/depth?" in request.url

    page.on("request", began)
    page.on("requestfinished", ended)
    page.set_input_files("#file", clip)
    until(page, ENDED)
    assert most == 1 and active == 0, "a frame was sent before the last one was answered"
    assert len(fake.sizes) > 1 and set(fake.sizes) == {(HEIGHT, WIDTH)}
    assert {query["format"] for _, query, _ in fake.seen} == {"npy"}
    assert ends_of(page) == pytest.approx([2.02, 3.98], abs=0.011)
    check_colours(page, RED)
    assert re.fullmatch(r"\d+ ms, [\d.]+ frames/s", page.inner_text("#latency"))
    assert page.inner_text("#status") == "walk.webm" and not page.locator("#error").is_visible()
    for name in ("#stream-image", "#stream-depth"):  # no bands
        box, frame = page.locator(name).bounding_box(), page.locator(name).locator("..").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.02)
        assert frame["height"] == pytest.approx(box["height"], abs=1)

    page.click("#refit")
    assert ends_of(page) == pytest.approx([1.02, 2.98], abs=0.011)
    check_colours(page, RED)
    page.fill("#stream-far", "9")
    page.keyboard.press("Tab")
    check_colours(page, RED)
    page.fill("#stream-far", "0.5")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.getElementById('stream-far').checkValidity()")
    page.locator("#position").evaluate("(range) => { range.value = 0; range.dispatchEvent(new Event('input')); }")
    until(page, "document.getElementById('time').textContent < '0.5'")  # played again, in the scale that was set
    until(page, ENDED)
    assert len(fake.sizes) > 3


def test_a_frame_is_kept_as_an_image(show: Open, clip: Path) -> None:
    page = show()
    page.set_input_files("#file", clip)
    until(page, ENDED)
    page.click("#keep")
    page.wait_for_selector("#result:not([hidden])")
    assert not page.locator("#stream").is_visible()
    assert re.match(r"walk-\d\.\d\ds\.jpg: 160 \u00d7 120", page.inner_text("#status"))
    page.set_input_files("#file", clip)
    page.wait_for_selector("#stream:not([hidden])")
    assert not page.locator("#result").is_visible()


def test_a_camera_is_started_and_stopped(show: Open, fake: Fake) -> None:
    page = show(**PHONE)
    page.click("#live")
    until(page, "/frames/.test(document.getElementById('latency').textContent)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    image, depth = (page.locator(name).bounding_box() for name in ("#stream-image", "#stream-depth"))
    assert depth["y"] > image["y"] + image["height"]
    page.click("#toggle")
    assert page.evaluate("document.getElementById('source').srcObject.getTracks()[0].readyState") == "ended"
    page.wait_for_timeout(100)
    count = len(fake.sizes)
    page.wait_for_timeout(200)
    assert len(fake.sizes) == count and not page.locator("#seeking").is_visible()
    page.click("#toggle")
    for _ in range(100):
        if len(fake.sizes) > count + 1:
            break
        page.wait_for_timeout(50)
    assert len(fake.sizes) > count + 1


def test_an_error_ends_a_stream_and_leaves_no_depth(show: Open, fake: Fake, clip: Path, tmp_path: Path) -> None:
    page = show(allowed="status of 422")
    (tmp_path / "notes.mp4").write_text("hello")
    fake.faults = [0.0, problem(422, "too dark")]
    for file, message in (
        (clip, "too dark"),
        (tmp_path / "notes.mp4", "notes.mp4 is not a video this browser can play"),
    ):
        page.set_input_files("#file", file)
        until(page, f"document.getElementById('error').textContent.startsWith('{message}')")
        assert not page.locator("#stream").is_visible() and page.locator("#empty").is_visible()
        assert page.inner_text("#status") == ""
    page.select_option("#model", "sparse-room")
    page.set_input_files("#file", clip)
    until(page, "document.getElementById('error').textContent.includes('needs sparse with each image')")
    assert len(fake.sizes) == 1


def test_another_model_estimates_the_frame_that_is_shown(show: Open, fake: Fake, clip: Path) -> None:
    page = show()
    page.set_input_files("#file", clip)
    until(page, ENDED)
    fake.estimate = lambda rgb: np.full(rgb.shape[:2], 7.0, np.float32)
    count = len(fake.sizes)
    page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    until(page, "document.getElementById('stream-near').value === '7.00'")
    assert len(fake.sizes) == count + 1
