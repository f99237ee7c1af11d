"""Pairs of colour and depth files, and their scenes, from names of files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthray.data import pairing
from depthray.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pair_names(root: Path, rgb: str, depth: str) -> list[tuple[str, str]]:
    found = pairing.find_pairs(root / rgb, root / depth)
    return [(str(each.rgb.relative_to(root)), str(each.depth.relative_to(root))) for each in found.pairs]


@pytest.mark.parametrize(
    ("files", "folders", "pairs"),
    [
        (["rgb/1.jpg", "rgb/2.png", "depth/1.png", "depth/2.npy"], ("rgb", "depth"), ["rgb/1.jpg depth/1.png"] * 1),
        (["rgb/a/1.jpg", "depth/a/1.png", "depth/b/1.png"], ("rgb", "depth"), ["rgb/a/1.jpg depth/a/1.png"]),
        (["c/7_rgb.jpg", "d/7_depth.png"], ("c", "d"), ["c/7_rgb.jpg d/7_depth.png"]),
        (["x/7-color.png", "x/7-depth.png"], ("x", "x"), ["x/7-color.png x/7-depth.png"]),
        (["s/a/rgb/7.png", "s/a/depth/7.png"], ("s", "s"), ["s/a/rgb/7.png s/a/depth/7.png"]),
        (
            ["rgb/1305031102.175304.png", "rgb/1305031102.275.png", "depth/1305031102.160407.png"],
            ("rgb", "depth"),
            ["rgb/1305031102.175304.png depth/1305031102.160407.png"],
        ),
    ],
)
def test_pairs(tmp_path: Path, files: list[str], folders: tuple[str, str], pairs: list[str]) -> None:
    found = [" ".join(each) for each in pair_names(touch(tmp_path, *files), *folders)]
    assert found[: len(pairs)] == pairs
    assert len(found) == (2 if "rgb/2.png" in files else 1)


def test_a_few_equal_times_are_not_equal_names(tmp_path: Path) -> None:
    times = [1305031102 + number for number in range(10)]
    touch(tmp_path, *(f"rgb/{time}.{0 if time % 10 else 5}1.png" for time in times))
    touch(tmp_path, *(f"depth/{time}.{0 if time % 10 else 5}{1 if time == times[0] else 2}.png" for time in times))
    assert len(pair_names(tmp_path, "rgb", "depth")) == 10


def test_files_without_partner_are_counted(tmp_path: Path) -> None:
    found = pairing.find_pairs(touch(tmp_path, "r/1.png", "r/2.png", "d/2.png", "d/3.png") / "r", tmp_path / "d")
    assert {kind: [path.name for path in files] for kind, files in found.alone.items()} == {
        "colour": ["1.png"],
        "depth": ["3.png"],
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["rgb/a.png", "depth/b.png"], "belongs to one of .*'a.png' and 'b.png'; give colour and depth"),
        (["rgb/a.txt", "depth/b.png"], "rgb: no colour images in it"),
        (["rgb/a.png", "depth/b.jpg"], "depth: no depth files in it"),
        (["rgb/a.png", "depth/a.png", "depth/a.npy"], "depth/a.npy and .*depth/a.png have one name"),
    ],
)
def test_no_pairs(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pairing.find_pairs(touch(tmp_path, *files) / "rgb", tmp_path / "depth")


def scene_names(root: Path, files: list[str], **choice: object) -> list[str]:
    touch(root, *(f"rgb/{name}" for name in files), *(f"depth/{name}" for name in files))
    pairs = pairing.find_pairs(root / "rgb", root / "depth").pairs
    return pairing.find_scenes(pairs, **choice).names


def test_scenes_are_folders(tmp_path: Path) -> None:
    assert scene_names(tmp_path, ["a/1.png", "b/1.png", "b/2.png"]) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("files", "scenes"),
    [
        (["kitchen_01.png", "kitchen_02.png", "hall-7.png", "hall-8.png"], ["hall", "hall", "kitchen", "kitchen"]),
        (["room1_1.png", "room1_2.png", "room2_1.png", "room2_2.png"], ["room1", "room1", "room2", "room2"]),
        (["a_1341845688.1.png", "a_1341845699.2.png", "b_1.png", "b_2.png"], ["a", "a", "b", "b"]),
        (["rgb_01.png", "rgb_02.png", "rgb_03.png"], ["part-00", "part-00", "part-01"]),
        (["a1.png", "b1.png", "c1.png"], ["part-00", "part-00", "part-01"]),  # each name is another
    ],
)
def test_scenes_are_names_without_their_number(tmp_path: Path, files: list[str], scenes: list[str]) -> None:
    assert scene_names(tmp_path, files) == scenes


def test_scenes_are_recordings_between_which_time_passes(tmp_path: Path) -> None:
    files = ["20260131_235955.png", "20260131_235959.png", "20260201_000001.png", "20260201_000030.png"]
    assert scene_names(tmp_path, files) == ["recording-000"] * 3 + ["recording-001"]
    pairs = pairing.find_pairs(tmp_path / "rgb", tmp_path / "depth").pairs
    assert len(set(pairing.find_scenes(pairs, "times", gap=1.0).names)) == 4


def test_scenes_are_parts_where_names_show_no_others(tmp_path: Path) -> None:
    names = scene_names(tmp_path, [f"{number:010d}.png" for number in range(0, 1200, 20)])  # numbers, not times
    assert [names.count(name) for name in dict.fromkeys(names)] == [6] * 10
    with pytest.raises(DataError, match="no time in its name"):
        scene_names(tmp_path, [], choice="times")


def test_parts_that_were_asked_for_are_not_put_down_to_the_names(tmp_path: Path) -> None:
    files = [f"{room}_{number}.png" for room in ("hall", "kitchen") for number in range(20)]
    scene_names(tmp_path, files)
    pairs = pairing.find_pairs(tmp_path / "rgb", tmp_path / "depth").pairs
    assert pairing.find_scenes(pairs).way == "one for each name without its number"
    asked = pairing.find_scenes(pairs, "parts")
    assert len(set(asked.names)) == 10 and "--scenes parts" in asked.way and "show no others" not in asked.way


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("1305031102.175304", 1305031102.175304),
        ("frame_1305031102175", 1305031102.175),
        ("1305031102175304", 1305031102.175304),
        ("1305031102175304000", 1305031102.175304),
        ("0000000123", None),
        ("20261399_000000", None),
        ("kitchen-12", None),
    ],
)
def test_time_in_a_name(name: str, seconds: float | None) -> None:
    found = pairing.time_in_name(Path(f"{name}.png"))
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=1e-5)
