"""Pictures on two sides of a split, resized, compressed or brightened, and those that only resemble each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthray.audit.check import find_faults
from depthray.audit.lookalikes import find_lookalikes, picture_hash
from depthray.data.rendering.render import render_frame
from depthray.data.source import Frame

PICTURES = [render_frame(0, number, height=96, width=128)["image"] for number in range(0, 40, 4)]  # of ten rooms


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        jpeg,
        lambda image: cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA),
        lambda image: np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8),
        lambda image: np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(np.uint8),
    ],
    ids=["same", "jpeg", "smaller", "brighter", "noise"],
)
def test_a_picture_that_is_changed_is_found_and_no_other(change):
    frames = [Frame(f"t{number}", "a", "train", "x") for number in range(10)]
    frames += [Frame(f"v{number}", "b", "val", "x") for number in range(10)]
    hashes = [picture_hash(image) for image in (*PICTURES, *map(change, PICTURES))]
    found = [(frame.id, other.id) for frame, other in find_lookalikes(frames, hashes)]
    assert len(found) >= 9
    assert all(one[1:] == other[1:] for one, other in found)


def test_only_declared_sides_are_compared():
    value = picture_hash(PICTURES[0])
    same = [Frame("a", "s", "train", "x"), Frame("b", "s", "train", "x")]
    undeclared = [Frame("a", "s", "", "x"), Frame("b", "t", "", "x")]
    mixed = [Frame("a", "s", "", "x"), Frame("b", "t", "test", "x")]
    assert [len(list(find_lookalikes(frames, [value] * 2))) for frames in (same, undeclared, mixed)] == [0, 0, 1]


def test_flat_pictures_are_not_compared():
    assert picture_hash(np.full((20, 30, 3), 90, np.uint8)) == -1
    frames = [Frame("a", "s", "train", "x"), Frame("b", "t", "val", "x")]
    assert list(find_lookalikes(frames, [-1, -1])) == []


class Sides:
    """A picture on both sides, once with other bytes and once with the same."""

    fingerprint, keys = "0" * 64, frozenset({"image", "depth"})
    images = (PICTURES[0], PICTURES[1], jpeg(PICTURES[0]), PICTURES[1])
    frames = tuple(Frame(f"f{number}", f"s{number}", "val" if number > 1 else "train", "x") for number in range(4))

    def read(self, index):
        depth = np.linspace(1, 2, 96 * 128, dtype=np.float32).reshape(96, 128)
        return {"image": self.images[index], "depth": depth}

    def faults(self, index):
        return []


def test_data_check_has_one_finding_for_each():
    findings = {finding.frame: finding for finding in find_faults(Sides(), max_depth=10)}
    assert {frame: finding.kind for frame, finding in findings.items()} == {
        "f2": "same on two sides",
        "f3": "duplicate frame",
    }
    assert "looks like 'f0' of the side train" in findings["f2"].detail
