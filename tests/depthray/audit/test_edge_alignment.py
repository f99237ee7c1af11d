"""Edges of depth against those of colour: pairs that are right, shifted, of another scale, and of other frames."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from depthray.__main__ import main
from depthray.audit import edge_alignment
from depthray.audit.edge_alignment import agreement, depth_edges, judge

SIZE = (120, 160)


def frame(seed):
    """(H,W,3) colour and (H,W) metres of boxes before a wall, textured and with noise."""
    random = np.random.default_rng(seed)
    depth, shade = np.full(SIZE, 5.0, np.float32), np.full(SIZE, 120.0, np.float32)
    for _ in range(5):
        top, left = random.integers(0, 90), random.integers(0, 120)
        box = (slice(top, top + random.integers(15, 50)), slice(left, left + random.integers(15, 50)))
        depth[box], shade[box] = random.uniform(1, 4), random.uniform(20, 230)
    texture = cv2.GaussianBlur(random.normal(0, 30, SIZE), (0, 0), 2)
    grey = np.clip(shade + texture + random.normal(0, 3, SIZE), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), depth


FRAMES = [frame(seed) for seed in range(16)]


def judged(change=lambda depth, number: depth):
    maps = {f"f{number}": agreement(image, change(depth, number)) for number, (image, depth) in enumerate(FRAMES)}
    return judge(maps)


def with_shadows(depth, number):
    """Unmeasured at the left of each near object, as structured light leaves it, and in holes."""
    holes = depth.copy()
    holes[:, 4:][np.diff(depth, n=4, axis=1)[:, : depth.shape[1] - 4] != 0] = 0
    holes[10:20, 10:20] = 0
    return holes


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda depth, number: depth, "agree"),
        (with_shadows, "agree"),
        (lambda depth, number: np.roll(depth, 1, axis=1), "agree"),
        (lambda depth, number: np.roll(depth, 5, axis=1), "shifted"),
        (lambda depth, number: np.roll(depth, (-3, 8), axis=(0, 1)), "shifted"),
        (lambda depth, number: FRAMES[(number + 5) % 16][1], "unrelated"),
    ],
    ids=["right", "shadows", "1 px", "5 px", "8 px and -3 px", "of other frames"],
)
def test_what_is_misaligned_is_found(change, verdict):
    found = judged(change)
    assert found.verdict == verdict
    assert found.frames == 16
    assert not found.doubtful


def test_the_shift_is_the_one_that_puts_it_right():
    across, down = judged(lambda depth, number: np.roll(depth, (4, -7), axis=(0, 1))).shift
    assert (across * SIZE[1], down * SIZE[1]) == pytest.approx((7, -4), abs=1)


def test_a_single_frame_with_the_depth_of_another_is_named():
    found = judged(lambda depth, number: FRAMES[9][1] if number == 3 else depth)
    assert found.verdict == "agree"
    assert found.doubtful == ["f3"]


@pytest.mark.parametrize(
    "depth",
    [
        np.full(SIZE, 2, np.float32),
        np.zeros(SIZE, np.float32),
        np.random.default_rng(0).uniform(1, 9, SIZE).astype(np.float32),
        np.tile(np.linspace(1, 5, SIZE[1], dtype=np.float32), (SIZE[0], 1)),
    ],
    ids=["flat", "empty", "noise", "ramp"],
)
def test_depth_without_edges_says_nothing(depth):
    assert agreement(FRAMES[0][0], depth) is None


def test_an_image_without_edges_says_nothing():
    assert agreement(np.full((*SIZE, 3), 7, np.uint8), FRAMES[0][1]) is None


def test_an_edge_beside_a_shadow_is_at_the_near_object():
    depth = np.full((4, 12), 4, np.float32)
    depth[:, 6:] = 1
    depth[:, 3:6] = 0  # unmeasured: seen by colour alone, part of what is behind
    assert depth_edges(depth).nonzero()[1].tolist() == [5] * 4


def folder(path, shift):
    path.mkdir()
    rows = ["rgb,depth,scene"]
    for number, (image, depth) in enumerate(FRAMES):
        cv2.imwrite(str(path / f"{number}.png"), image)
        cv2.imwrite(str(path / f"{number}-depth.png"), np.rint(np.roll(depth, shift, axis=1) * 1000).astype(np.uint16))
        rows.append(f"{number}.png,{number}-depth.png,room{number // 4}")
    (path / "index.csv").write_text("\n".join(rows))
    return path


def test_data_check_reports_it(tmp_path, capsys):
    assert main(["data", "check", str(folder(tmp_path / "good", 0))]) == 0
    assert "edges of depth and colour agree" in capsys.readouterr().out
    assert main(["data", "check", str(folder(tmp_path / "bad", 6)), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    (finding,) = report["findings"]
    assert finding["kind"] == "misaligned"
    assert "best where depth is moved by -3" in finding["detail"]
    assert next(iter(report["edges"].values()))["verdict"] == "shifted"


def test_few_frames_say_nothing():
    assert edge_alignment.inspect_alignment(SimpleNamespace(frames=[])) == {}
