"""The page of a depth server in a real headless Chromium: pictures in, metres, distances, points and files out."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from serve_fake import PAGE, Fake, Wall, busy, problem, running, wall  # noqa: E402

from depthray import export, picture  # noqa: E402
from serve import api, auth  # noqa: E402
from serve.settings import Settings  # noqa: E402

HEIGHT, WIDTH = 120, 160
DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a GPU
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]
Open = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium that starts: apt-get install chromium-headless-shell ({str(error)[:80]})")
        yield made
        made.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def url(fake: Fake) -> Iterator[str]:
    with running(fake.app) as address:
        yield address


@pytest.fixture
def show(browser: sync_api.Browser, url: str) -> Iterator[Open]:
    """Opens the page; at the end nothing may have been logged, thrown, or fetched from elsewhere."""
    faults: list[str] = []
    contexts = []

    def opened(*, allowed: str = "$^", **options: object) -> sync_api.Page:
        context = browser.new_context(**{**DESK, **options}, permissions=["camera"])
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on("console", lambda line: re.search(allowed, line.text) or faults.append(f"logged: {line.text}"))
        page.on("request", lambda asked: asked.url.startswith((url, "blob:", "data:")) or faults.append(asked.url))
        page.goto(url)
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def rgb() -> np.ndarray:
    """Grey noise with a red square, which the fake server puts 1 m nearer."""
    pixels = np.random.default_rng(1).integers(60, 190, (HEIGHT, WIDTH, 1)).astype(np.uint8).repeat(3, axis=2)
    pixels[40:80, 100:140] = (230, 20, 20)
    return pixels


@pytest.fixture
def photo(rgb: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "room.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def give(page: sync_api.Page, path: Path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_selector("body:not(.busy)")


def until(page: sync_api.Page, true: str) -> None:
    """Wait for an expression. Playwright's own way evaluates in the page, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {true}")


def spot(page: sync_api.Page, u: int, v: int) -> dict[str, float]:
    """The middle of a pixel of the picture, from the corner of its canvas."""
    box = page.locator("#flat").bounding_box()
    size = page.evaluate("[document.getElementById('flat').width, document.getElementById('flat').height]")
    return {"x": (u + 0.5) * box["width"] / size[0], "y": (v + 0.5) * box["height"] / size[1]}


def pixels_of(page: sync_api.Page, name: str) -> np.ndarray:
    """What an element looks like -> (H,W,3) RGB."""
    shot = cv2.imdecode(np.frombuffer(page.locator(name).screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return shot[..., ::-1].astype(int)


def canvas_of(page: sync_api.Page) -> np.ndarray:
    """The pixels of the picture's canvas -> (H,W,3) RGB."""
    data = page.evaluate("document.getElementById('flat').toDataURL('image/png').split(',')[1]")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return shown[..., ::-1].astype(int)


def metres_apart(rgb: np.ndarray, one: tuple[int, int], two: tuple[int, int], *, degrees: float = 60.0) -> float:
    depth = wall(rgb)
    camera = export.assumed_camera(*depth.shape, degrees=degrees)
    ends = [export.unproject(u, v, float(depth[v, u]), camera=camera) for u, v in (one, two)]
    return float(np.linalg.norm(ends[0] - ends[1]))


def test_the_page_needs_nothing_from_elsewhere(show: Open) -> None:
    show()
    for file in PAGE.iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", file.read_text(encoding="utf-8"))
        assert [address for address in addresses if "www.w3.org" not in address] == []


def test_a_picture_shows_itself_and_its_depth_side_by_side(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)
    shown, half = canvas_of(page), WIDTH // 2
    np.testing.assert_array_equal(shown[:, :half], rgb[:, :half])
    near, far = np.percentile(wall(rgb), [1, 99])
    expected = picture.colour(wall(rgb), near=near, far=far).astype(int)
    assert np.abs(shown - expected)[:, half:].max() < 30
    assert np.abs(shown - expected)[:, half:].mean() < 4
    assert page.inner_text("#near") == f"{near:.2f} m" and page.inner_text("#far") == f"{far:.2f} m"
    assert "160 \u00d7 120" in page.inner_text("#status")
    assert "room@0123456789ab" in page.inner_text("#facts")


@pytest.mark.parametrize("spot_", [(3, 5), (120, 60), (159, 119), (0, 0)])
def test_metres_under_the_pointer_are_the_server_s(
    show: Open, photo: Path, rgb: np.ndarray, spot_: tuple[int, int]
) -> None:
    page = show()
    give(page, photo)
    page.locator("#flat").hover(position=spot(page, *spot_))
    u, v = spot_
    assert page.inner_text("#reading") == f"{wall(rgb)[v, u]:.3f} m at {u}, {v}"


def test_two_clicks_give_a_distance_that_follows_the_angle_of_view(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)
    ends = (20, 100), (120, 60)
    for end in ends:
        page.locator("#flat").click(position=spot(page, *end))
    assert page.inner_text("#distance").startswith(f"{metres_apart(rgb, *ends):.3f} m apart")
    page.locator("#fov").fill("90")
    assert page.inner_text("#distance").startswith(f"{metres_apart(rgb, *ends, degrees=90):.3f} m apart")
    page.locator("#flat").click(position=spot(page, 50, 50))
    assert "Click the second" in page.inner_text("#distance")


def test_the_divider_moves_by_key_and_by_drag(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)
    page.locator("#divider").press("Home")
    assert not (canvas_of(page) == rgb).all(axis=2)[:, 5:].any(axis=0).all()
    page.locator("#divider").press("End")
    np.testing.assert_array_equal(canvas_of(page), rgb)
    page.locator("#divider").fill("500")
    box = page.locator("#flat").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=4)
    page.mouse.up()
    np.testing.assert_array_equal(canvas_of(page)[:, :118], rgb[:, :118])
    assert (canvas_of(page)[:, 122:] != rgb[:, 122:]).any()
    assert "Click two points" in page.inner_text("#distance")  # a drag marks nothing


def test_everything_can_be_done_with_the_keyboard(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)
    page.focus("#flat")
    for key in ("Shift+ArrowLeft", "Enter", "Shift+ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    ends = (60, 60), (82, 62)
    assert page.inner_text("#distance").startswith(f"{metres_apart(rgb, *ends):.3f} m apart")
    assert page.inner_text("#reading") == f"{wall(rgb)[62, 82]:.3f} m at 82, 62"
    page.keyboard.press("Escape")
    assert "Click two points" in page.inner_text("#distance")
    reached = []
    page.focus("#model")
    for _ in range(11):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.format"))
    assert reached == ["open", "take", "flat", "divider", "front", "cloud", "fov", "png", "npy", "colour", "ply"]


def test_points_look_like_the_picture_and_turn(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)

    def red() -> np.ndarray:
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shown = pixels_of(page, "#cloud")
        return np.argwhere((shown[..., 0] > 200) & (shown[..., 1] < 60))

    front = red()
    shape = pixels_of(page, "#cloud").shape
    fit = min(shape[0] / HEIGHT, shape[1] / WIDTH)
    middle = (front.mean(axis=0) - np.array(shape[:2]) / 2) / fit  # of the red square, in pixels from the middle
    np.testing.assert_allclose(middle, [0, 40], atol=2)
    assert len(front) / fit**2 == pytest.approx(1600, rel=0.15)
    page.focus("#cloud")
    places = []
    for keys in (["ArrowRight"] * 2, ["ArrowLeft"] * 4):
        for key in keys:
            page.keyboard.press(key)
        places.append(red()[:, 1].mean())
    assert places[1] + 4 < places[0]  # what is nearer moves with the hand
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert np.ptp(red()[:, 1]) < 0.5 * np.ptp(front[:, 1])  # seen from the side
    page.keyboard.press("0")
    np.testing.assert_allclose(red().mean(axis=0), front.mean(axis=0), atol=1)
    box = page.locator("#cloud").bounding_box()
    places = []
    for hand in (40, -80):
        page.mouse.move(box["x"] + 200, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 200 + hand, box["y"] + 100, steps=3)
        page.mouse.up()
        places.append(red()[:, 1].mean())
    assert places[1] + 4 < places[0]
    page.click("#front")
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -300)
    assert len(red()) > 1.3 * len(front)


@pytest.mark.parametrize(
    "form, name, start",
    [
        ("png", "room.depth.png", b"\x89PNG"),
        ("npy", "room.depth.npy", b"\x93NUMPY"),
        ("colour", "room.colour.png", b"\x89PNG"),
        ("ply", "room.ply", b"ply\n"),
        ("glb", "room.glb", b"glTF"),
    ],
)
def test_downloads(show: Open, photo: Path, fake: Fake, rgb: np.ndarray, form: str, name: str, start: bytes) -> None:
    page = show()
    give(page, photo)
    page.locator("#fov").fill("75")
    with page.expect_download() as waiting:
        page.click(f"[data-format={form}]")
    data = Path(waiting.value.path()).read_bytes()
    assert waiting.value.suggested_filename == name and data.startswith(start)
    assert fake.seen[-1][1] == {"format": form, **({"fov": "75"} if form in ("ply", "glb") else {})}
    if form == "png":
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, export.millimetres(wall(rgb)))


def test_a_turned_photograph_stands_upright(show: Open, rgb: np.ndarray, tmp_path: Path) -> None:
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


def test_a_huge_picture_is_sent_smaller(show: Open, fake: Fake, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "huge.jpg"), np.full((300, 4096, 3), 128, np.uint8))
    page = show()
    give(page, tmp_path / "huge.jpg")
    assert fake.sizes == [(150, 2048)]
    assert "picture of 4096 \u00d7 300 sent smaller" in page.inner_text("#facts")


def test_a_picture_can_be_dropped_and_pasted(show: Open, fake: Fake) -> None:
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


def test_a_dropped_link_is_not_fetched(show: Open, fake: Fake) -> None:
    page = show()
    page.evaluate(
        """() => { const event = new Event("drop", { bubbles: true, cancelable: true });
        event.dataTransfer = new DataTransfer(); document.body.dispatchEvent(event); }"""
    )
    assert "fetches nothing" in page.inner_text("#trouble")
    assert not fake.seen


def test_a_picture_can_be_taken(show: Open, fake: Fake) -> None:
    page = show()
    page.click("#take")
    until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#shoot")
    page.wait_for_selector("#result:not([hidden])")
    assert len(fake.sizes) == 1
    assert not page.locator("#booth").is_visible()
    assert page.inner_text("#status").startswith("camera.jpg")


def test_a_refusal_is_shown_in_the_server_s_words(show: Open, fake: Fake, photo: Path) -> None:
    page = show(allowed="status of 422")
    fake.faults = [problem(422, "too wide <img src=x onerror=alert(1)>")]
    page.set_input_files("#file", photo)
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.inner_text("#trouble") == "too wide <img src=x onerror=alert(1)>"
    give(page, photo)
    assert not page.locator("#trouble").is_visible()


def test_a_full_queue_is_waited_for(show: Open, fake: Fake, photo: Path) -> None:
    page = show(allowed="status of 429")
    fake.faults = [busy(after="1")]
    give(page, photo)
    assert len(fake.seen) == 2


def test_what_is_no_picture_is_said_so(show: Open, fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    page = show()
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "notes.txt is not a picture" in page.inner_text("#trouble")
    assert not fake.seen


def test_a_server_that_is_gone_is_said_so(browser: sync_api.Browser, photo: Path) -> None:
    page = browser.new_page()
    with running(Fake().app) as url:
        page.goto(url)
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
    page.set_input_files("#file", photo)
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.inner_text("#trouble") == "The server does not answer."
    page.close()


def test_a_key_is_asked_for_and_kept_for_the_visit(browser: sync_api.Browser, photo: Path) -> None:
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
        assert not page.locator("#gate").is_visible()
    page.close()


def test_another_model_is_asked_with_what_it_needs(show: Open, fake: Fake, photo: Path, tmp_path: Path) -> None:
    page = show()
    give(page, photo)
    assert fake.seen[-1][0] == "/v1/models/room/depth"
    page.select_option("#model", "sparse-room")
    assert page.inner_text("#status") == "Still needed: sparse"
    np.save(tmp_path / "measured.npy", np.zeros((HEIGHT, WIDTH), np.float32))
    page.set_input_files("input[name=sparse]", tmp_path / "measured.npy")
    until(page, "document.getElementById('status').textContent.startsWith('room.png')")
    path, _, headers = fake.seen[-1]
    assert path == "/v1/models/sparse-room/depth"
    assert headers["content-type"].startswith("multipart/form-data")


def test_a_phone_has_it_all_in_one_column(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show(**PHONE)
    assert page.get_by_text("Open or take a picture").is_visible()
    give(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    flat, cloud = (page.locator(name).bounding_box() for name in ("#flat", "#cloud"))
    assert cloud["y"] > flat["y"] + flat["height"] and flat["width"] > 250 and cloud["width"] > 250
    for button in page.locator("header button, #downloads button, select").all():
        assert button.bounding_box()["height"] >= 40
    ends = (20, 100), (120, 60)
    for end in ends:
        page.locator("#flat").tap(position=spot(page, *end))
    said = float(page.inner_text("#distance").split(" ")[0])
    assert said == pytest.approx(metres_apart(rgb, *ends), abs=0.05)  # a finger is wider than a pixel


def test_the_true_api_serves_the_page_and_what_it_asks_for(
    browser: sync_api.Browser, photo: Path, rgb: np.ndarray
) -> None:
    key, faults = "k" * 20, []
    page = browser.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: "status of 401" in line.text or faults.append(line.text))
    with running(api.create(Wall(), Settings(), keys=auth.Keys([key]), name_ids=True)) as url:
        page.goto(url)
        page.wait_for_selector("#gate[open]")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
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
