"""Images into the page of a depth server, in a real headless Chromium, and what it shows when one is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import hangs
import numpy as np
from page_actions import HEIGHT, WIDTH, Open, canvas_of, give, spot, until
from serve_fake import Fake, Wall, busy, problem, running, wall

from serve.http import auth, routes
from serve.settings import Settings

if TYPE_CHECKING:
    from playwright import sync_api


def test_a_rotated_photograph_is_shown_upright(show: Open, rgb: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen a quarter turn clockwise
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    page = show()
    give(page, tmp_path / "turned.jpg")
    assert "120 \u00d7 160" in page.inner_text("#status")
    page.locator("#divider").press("End")
    upright = np.rot90(rgb, -1).astype(int)
    assert np.abs(canvas_of(page) - upright).mean() < 12
    page.locator("#flat").hover(position=spot(page, 10, 10))
    assert page.inner_text("#reading").startswith(f"{wall(upright)[10, 10]:.3f} m")


def test_a_huge_image_is_downscaled_before_upload(show: Open, fake: Fake, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "huge.jpg"), np.full((300, 4096, 3), 128, np.uint8))
    page = show()
    give(page, tmp_path / "huge.jpg")
    assert fake.sizes == [(150, 2048)]
    assert "image of 4096 \u00d7 300 downscaled before upload" in page.inner_text("#facts")


def test_an_image_can_be_dropped_and_pasted(show: Open, fake: Fake) -> None:
    page = show()
    for number, (kind, bag) in enumerate((("drop", "dataTransfer"), ("paste", "clipboardData")), start=1):
        page.evaluate(
            """async ([kind, bag]) => {
                const canvas = new OffscreenCanvas(64, 48);
                canvas.getContext("2d").fillRect(0, 0, 64, 48);
                const data = new DataTransfer();
                data.items.add(new File([await canvas.convertToBlob()], "a.png", { type: "image/png" }));
                const event = new Event(kind, { bubbles: true, cancelable: true });
                event[bag] = data;
                document.body.dispatchEvent(event);
            }""",
            [kind, bag],
        )
        until(page, "document.getElementById('status').textContent.includes('64 \u00d7 48')")
        page.wait_for_selector("body:not(.busy)")
        assert len(fake.sizes) == number
        page.evaluate("document.getElementById('status').textContent = ''")


def test_a_dropped_link_is_not_downloaded(show: Open, fake: Fake) -> None:
    page = show()
    page.evaluate(
        """() => { const event = new Event("drop", { bubbles: true, cancelable: true });
        event.dataTransfer = new DataTransfer(); document.body.dispatchEvent(event); }"""
    )
    assert "downloads nothing" in page.inner_text("#error")
    assert not fake.seen


def test_a_photo_can_be_taken(show: Open, fake: Fake) -> None:
    page = show()
    page.click("#take")
    until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#shoot")
    page.wait_for_selector("#result:not([hidden])")
    assert len(fake.sizes) == 1
    assert not page.locator("#camera-dialog").is_visible()
    assert page.inner_text("#status").startswith("camera.jpg")


def test_a_refusal_is_shown_with_the_message_of_the_server(show: Open, fake: Fake, photo: Path) -> None:
    page = show(allowed="status of 422")
    fake.faults = [problem(422, "too wide <img src=x onerror=alert(1)>")]
    page.set_input_files("#file", photo)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "too wide <img src=x onerror=alert(1)>"
    give(page, photo)
    assert not page.locator("#error").is_visible()


def test_an_error_leaves_no_result_of_another_image(show: Open, fake: Fake, photo: Path, tmp_path: Path) -> None:
    page = show(allowed="status of 422")
    give(page, photo)
    fake.faults = [problem(422, "too wide")]
    (tmp_path / "notes.txt").write_text("hello")
    for file, message in ((photo, "too wide"), (tmp_path / "notes.txt", "notes.txt is not an image")):
        page.set_input_files("#file", file)
        until(page, f"document.getElementById('error').textContent.startsWith('{message}')")
        assert not page.locator("#result").is_visible() and page.locator("#empty").is_visible()
        assert page.inner_text("#status") == ""
        give(page, photo)
        assert not page.locator("#error").is_visible()


def test_the_example_is_a_rendered_room(show: Open, fake: Fake) -> None:
    page = show()
    until(page, "document.querySelector('#example img').naturalWidth === 640")
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    assert fake.sizes == [(480, 640)]
    assert page.inner_text("#status").startswith("example.jpg: 640 \u00d7 480")


def test_a_full_queue_is_retried(show: Open, fake: Fake, photo: Path) -> None:
    page = show(allowed="status of 429")
    fake.faults = [busy(after="1")]
    give(page, photo)
    assert len(fake.seen) == 2


def test_a_file_that_is_no_image_is_reported(show: Open, fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    page = show()
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("#error:not([hidden])")
    assert "notes.txt is not an image" in page.inner_text("#error")
    assert not fake.seen


def test_a_server_that_is_gone_is_reported(browser: sync_api.Browser, photo: Path) -> None:
    page = browser.new_page()
    with running(Fake().app) as url:
        page.goto(url)
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
    page.set_input_files("#file", photo)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "The server does not answer."
    page.close()


def test_a_key_is_requested_and_kept_for_the_session(browser: sync_api.Browser, photo: Path) -> None:
    page = browser.new_page()
    with running(Fake(key="s3cret").app) as url:
        page.goto(url)
        for key in ("wrong", "s3cret"):
            page.fill("#key", key)
            page.keyboard.press("Enter")
            page.wait_for_timeout(100)
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
        give(page, photo)
        page.reload()
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
        assert not page.locator("#key-dialog").is_visible()
    page.close()


def test_another_model_gets_its_further_inputs(show: Open, fake: Fake, photo: Path, tmp_path: Path) -> None:
    page = show()
    give(page, photo)
    assert fake.seen[-1][0] == "/v1/models/room/depth"
    page.select_option("#model", "sparse-room")
    assert page.inner_text("#status") == "Still missing: sparse"
    np.save(tmp_path / "measured.npy", np.zeros((HEIGHT, WIDTH), np.float32))
    page.set_input_files("input[name=sparse]", tmp_path / "measured.npy")
    until(page, "document.getElementById('status').textContent.startsWith('room.png')")
    path, _, headers = fake.seen[-1]
    assert path == "/v1/models/sparse-room/depth"
    assert headers["content-type"].startswith("multipart/form-data")


def test_a_model_of_any_camera_is_told_the_field_of_view(show: Open, fake: Fake, photo: Path) -> None:
    page = show()
    give(page, photo)
    assert "fov" not in fake.seen[-1][1] and "Depths do not depend on it" in page.inner_text("#camera")
    page.select_option("#model", "any-camera")
    hangs.until(lambda: fake.seen[-1][:2] == ("/v1/models/any-camera/depth", {"format": "npy", "fov": "60"}))
    assert "This model's depths depend on it" in page.inner_text("#camera")
    page.locator("#fov").fill("90")
    page.locator("#fov").dispatch_event("change")
    hangs.until(lambda: fake.seen[-1][1] == {"format": "npy", "fov": "90"})
    until(page, "!document.body.classList.contains('busy')")


def test_the_true_api_serves_the_page_and_its_requests(browser: sync_api.Browser, photo: Path, rgb: np.ndarray) -> None:
    key, faults = "k" * 20, []
    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.extend([] if "status of 401" in line.text else [line.text]))
    with running(routes.create(Wall(), Settings(), keys=auth.Keys([key]), send_id=True)) as url:
        page.goto(url)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
        until(page, "document.querySelector('#example img').naturalWidth === 640")
        give(page, photo)
        page.locator("#flat").hover(position=spot(page, 120, 60))
        assert page.inner_text("#reading") == f"{wall(rgb)[60, 120]:.3f} m at 120, 60"
        for form, start in {"png": b"\x89PNG", "npy": b"\x93NUMPY", "ply": b"ply", "glb": b"glTF"}.items():
            with page.expect_download() as waiting:
                page.click(f"[data-format={form}]")
            assert Path(waiting.value.path()).read_bytes().startswith(start)
        with page.expect_download() as waiting:
            page.click("[data-format=colour]")
        assert re.fullmatch(r"room\.colour\.(png|jpg|webp)", waiting.value.suggested_filename)
    page.close()
    assert not faults
