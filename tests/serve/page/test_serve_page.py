"""The page of a depth server in a real headless Chromium: metres, distances, points and files out."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import PHONE
from page_actions import HEIGHT, WIDTH, Open, canvas_of, give, metres_apart, pixels_of, spot
from serve_fake import PAGE, Fake, wall

from depthray.imaging import export, sheets


def test_the_page_loads_nothing_from_other_servers(show: Open) -> None:
    show()
    for file in PAGE.iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", file.read_text(encoding="utf-8"))
        assert [address for address in addresses if "www.w3.org" not in address] == []


def test_an_image_is_shown_and_its_depth_side_by_side(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show()
    give(page, photo)
    shown, half = canvas_of(page), WIDTH // 2
    np.testing.assert_array_equal(shown[:, :half], rgb[:, :half])
    near, far = np.percentile(wall(rgb), [1, 99])
    expected = sheets.colour_depth(wall(rgb), near=near, far=far).astype(int)
    assert np.abs(shown - expected)[:, half:].max() < 30
    assert np.abs(shown - expected)[:, half:].mean() < 4
    assert page.inner_text("#near") == f"{near:.2f} m" and page.inner_text("#far") == f"{far:.2f} m"
    assert "160 \u00d7 120" in page.inner_text("#status")
    assert "room@0123456789ab" in page.inner_text("#facts")
    assert page.inner_text("#warning") == "Not as in training, so metres may be off: dark: very."


def test_the_model_and_its_score_are_said_in_words(show: Open) -> None:
    page = show()
    assert page.inner_text("#about") == (
        "A network of the architecture unet that reads an image. Rooms for tests. On its validation frames its depth "
        "was 8.3 % off on average, 91 % of the pixels were within 25 %, the root mean square error was 0.46 m. "
        "Trained on photographs of 640 x 480 pixels, 0.7 to 9.0 m away."
    )
    page.select_option("#model", "sparse-room")
    assert page.inner_text("#about").endswith("dpt that reads an image and sparse measured depth.")


@pytest.mark.parametrize(
    ("size", "options"), [((120, 160), {}), ((160, 120), {}), ((60, 240), PHONE)], ids=["desk", "portrait", "phone"]
)
def test_the_views_have_the_shape_of_the_image(
    show: Open, tmp_path: Path, size: tuple[int, int], options: dict[str, object]
) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((*size, 3), 120, np.uint8))
    page = show(**options)
    give(page, tmp_path / "grey.png")
    for name in ("#flat", "#cloud"):
        box = page.locator(name).bounding_box()
        assert box["width"] / box["height"] == pytest.approx(size[1] / size[0], rel=0.02)
        frame = page.locator(name).locator("..").bounding_box()
        assert frame["height"] == pytest.approx(box["height"], abs=1)  # nothing above and below


@pytest.mark.parametrize("spot_", [(3, 5), (120, 60), (159, 119), (0, 0)])
def test_metres_under_the_pointer_are_the_server_s(
    show: Open, photo: Path, rgb: np.ndarray, spot_: tuple[int, int]
) -> None:
    page = show()
    give(page, photo)
    page.locator("#flat").hover(position=spot(page, *spot_))
    u, v = spot_
    assert page.inner_text("#reading") == f"{wall(rgb)[v, u]:.3f} m at {u}, {v}"


def test_two_clicks_give_a_distance_that_follows_the_field_of_view(show: Open, photo: Path, rgb: np.ndarray) -> None:
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
    expected = ["open", "take", "live", "flat", "divider", "front", "cloud", "fov", "png", "npy", "colour", "ply"]
    for _ in expected:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.format"))
    assert reached == [
        "open",
        "take",
        "live",
        "flat",
        "divider",
        "front",
        "cloud",
        "fov",
        "png",
        "npy",
        "colour",
        "ply",
    ]


def test_points_look_like_the_image_and_turn(show: Open, photo: Path, rgb: np.ndarray) -> None:
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
    ("form", "name", "start"),
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


def test_a_phone_has_it_all_in_one_column(show: Open, photo: Path, rgb: np.ndarray) -> None:
    page = show(**PHONE)
    assert page.get_by_text("Open an image or take a photo").is_visible()
    give(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    flat, cloud = (page.locator(name).bounding_box() for name in ("#flat", "#cloud"))
    assert cloud["y"] > flat["y"] + flat["height"] and flat["width"] > 250 and cloud["width"] > 250
    for button in page.locator("header button, #downloads button, select").all():
        assert button.bounding_box()["height"] >= 40
    ends = (20, 100), (120, 60)
    for end in ends:
        page.locator("#flat").tap(position=spot(page, *end))
    shown = float(page.inner_text("#distance").split(" ")[0])
    assert shown == pytest.approx(metres_apart(rgb, *ends), abs=0.05)  # a finger is wider than a pixel
