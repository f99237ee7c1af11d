"""Warnings about inputs that are not like the frames a network was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from depthray.cards import measured, outside
from depthray.checkpoints.model_facts import TrainedLimits
from depthray.imaging.camera import Camera
from depthray.predict import Predictor
from depthray.training import preflight


def photograph(height: int = 480, width: int = 640) -> Any:
    rng = np.random.default_rng(0)
    return np.repeat(rng.integers(60, 200, (height, width, 1), np.uint8), 3, axis=2)


EXACT = preflight.load("demo", ["data.size=240,320"]).data
SEEN = measured.light(cv2.resize(photograph(), (320, 240), interpolation=cv2.INTER_AREA))
LIMITS = TrainedLimits(
    measured=32,
    width=(640.0, 640.0),
    height=(480.0, 480.0),
    brightness=(SEEN.brightness - 0.1, SEEN.brightness + 0.1),
    sharpness=(SEEN.sharpness * 0.9, SEEN.sharpness * 1.1),
    focal=(519.0, 519.0),
    input_focal=(259.5, 259.5),
    depth=(1.0, 5.0),
)
INSIDE = np.full((48, 64), 3.0, np.float32)


def test_a_frame_as_in_training_is_answered_without_a_warning() -> None:
    assert outside.warnings(LIMITS, EXACT, photograph(), focal=519.0, depth=INSIDE) == []
    assert outside.warnings(LIMITS, EXACT, photograph(960, 1280), focal=1038.0, depth=INSIDE) == []


@pytest.mark.parametrize(
    ("image", "facts", "begins"),
    [
        (photograph() // 4, {}, "dark: "),
        (255 - (255 - photograph()) // 5, {}, "bright: "),
        (cv2.GaussianBlur(photograph(), (0, 0), 4), {}, "blurred: "),
        (photograph(480, 1280), {}, "size 1280x480: made 320x240 it is stretched"),
        (photograph(120, 160), {}, "size 160x120: enlarged to 320x240"),
        (
            photograph(),
            {"focal": 800.0},
            "focal length 400 px, where training had 260 px: metres are likely 1.54 times",
        ),
        (photograph(), {"focal": 259.5}, "focal length 130 px"),
        (photograph(), {"depth": np.where(np.arange(64) < 16, 9.0, INSIDE)}, "depth: 25 % of it is beyond the 1.00 to"),
    ],
)
def test_what_is_outside_is_said(image: Any, facts: Any, begins: str) -> None:
    found = outside.warnings(LIMITS, EXACT, image, **facts)
    assert any(text.startswith(begins) for text in found), found
    assert all("; " not in text and text.isascii() for text in found)  # they are joined in one header


@pytest.mark.parametrize(("width", "warned"), [(480, True), (540, False), (640, False), (720, False), (853, True)])
def test_other_shapes_of_photographs_are_answered_silently_up_to_a_quarter(width: int, warned: bool) -> None:
    found = list(outside.of_input(LIMITS, EXACT, (480, width), SEEN))  # 1:1, 9:8, 4:3 as in training, 3:2, 16:9
    assert bool(found) == warned, found


def test_factors_name_the_direction() -> None:
    (longer,) = outside.of_focal((259.5, 259.5), 519.0)
    (shorter,) = outside.of_focal((259.5, 259.5), 129.75)
    assert longer.endswith("2.00 times too small") and shorter.endswith("2.00 times too large")


def test_limits_that_are_not_known_warn_of_nothing() -> None:
    unknown = replace(LIMITS, focal=None, input_focal=None, depth=None)
    assert outside.warnings(unknown, EXACT, photograph(), focal=5000.0, depth=9 * INSIDE) == []


def test_networks_that_keep_the_aspect_or_the_size_stretch_nothing() -> None:
    aspect = EXACT.model_copy(update={"fit": "aspect"})
    assert not [text for text in outside.warnings(LIMITS, aspect, photograph(480, 1280)) if text.startswith("size")]
    native = EXACT.model_copy(update={"fit": "native"})
    assert [text for text in outside.warnings(LIMITS, native, photograph(480, 1280)) if text.startswith("size")]


def test_a_predictor_without_facts_warns_of_nothing() -> None:
    import torch

    class Network(torch.nn.Module):
        inputs = ("image",)

    recipe = preflight.load("demo", [])
    predictor = Predictor(Network(), recipe, device=torch.device("cpu"))
    assert predictor.warnings(photograph() // 8, camera=Camera(1, 1, 0, 0)) == []
