"""The gate measures what differs, and passes only what stays within the bound."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from depthray.exporting import gate, parity_report
from depthray.exporting.export_frames import open_frames
from depthray.exporting.gate import GateRow, MapError, Parity, ScoreChange
from depthray.exporting.graph import ExportGraph, TracedGraph
from depthray.training import preflight

SIZE = (32, 48)


class Plane(nn.Module):
    """Depth that grows from top to bottom, plus what `harm` adds to it."""

    inputs = ("image",)
    outputs = ("depth",)
    stride = 1

    def __init__(self, harm=lambda depth: depth):
        super().__init__()
        self.harm = harm
        self.sizes = []

    def forward(self, batch):
        image = batch["image"]
        self.sizes.append(tuple(image.shape))
        depth = 2 + 2 * torch.linspace(0, 1, image.shape[-2])[:, None] + 0 * image[:, :1]
        return {"depth": self.harm(depth)}


def recipe(*overrides):
    return preflight.load("demo", [f"data.size={SIZE[0]},{SIZE[1]}", *overrides], training=False)


@pytest.fixture(scope="module")
def frames():
    return open_frames(recipe().data, None, None, calibration=8, gate=12)


def compare(frames, exported, *, precision="fp32", sizes=(SIZE, (64, 64)), **options):
    return gate.compare(
        Plane(), exported, frames, recipe(), sizes=sizes, batches=(1, 4), precision=precision, **options
    )


def test_frames_of_calibration_and_gate_are_of_different_scenes(frames):
    scenes = [{frames.source.frames[index].scene for index in side} for side in (frames.calibration, frames.gate)]
    assert len(frames.calibration) == 8 and len(frames.gate) == 12
    assert not scenes[0] & scenes[1] and all(scenes)


def test_the_same_network_passes(frames):
    exported = Plane()
    parity = compare(frames, exported)
    assert parity.passed and parity.measured == 0
    assert [(row.size, row.batch, row.frames) for row in parity.rows] == [
        (size, batch, 12) for size in (SIZE, (64, 64)) for batch in (1, 4)
    ]
    assert {shape[-2:] for shape in exported.sizes} == {SIZE, (64, 64)}
    assert {shape[0] for shape in exported.sizes} == {1, 4}
    assert set(parity.rows[0].scores) == {"abs_rel", "delta1", "rmse"}
    assert all(change.after == change.before for row in parity.rows for change in row.scores.values())


def test_what_differs_is_measured_in_metres(frames):
    def harm(depth):
        depth = depth.clone()
        depth[..., 0, 0] += 0.4  # one pixel of 1536: beyond the 99.9th percentile
        return depth + 0.01

    parity = compare(frames, Plane(harm), sizes=[SIZE])
    error = parity.rows[0].errors["depth"]
    assert error.largest == pytest.approx(0.41, abs=1e-5)
    assert error.p999 == pytest.approx(0.01, abs=1e-5)
    assert error.relative == pytest.approx(0.41 / 4, abs=1e-5)
    assert not parity.passed
    assert compare(frames, Plane(harm), sizes=[SIZE], bound=0.2).passed


def test_with_fewer_bits_the_score_decides(frames):
    worse = compare(frames, Plane(lambda depth: 1.2 * depth), precision="int8", sizes=[SIZE])
    change = worse.rows[0].scores["abs_rel"]
    better = 1.2 if change.relative < 0 else 1 / 1.2  # of an untrained plane either may be nearer to the truth
    good = compare(frames, Plane(lambda depth: better * depth), precision="int8", sizes=[SIZE])
    bad = compare(frames, Plane(lambda depth: depth / better), precision="int8", sizes=[SIZE])
    assert good.passed and good.measured < 0
    assert not bad.passed and bad.measured == pytest.approx(bad.rows[0].scores["abs_rel"].relative)
    assert change.low <= change.after - change.before <= change.high


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_map_that_is_not_finite_fails(frames, precision, value):
    def harm(depth):
        depth = depth.clone()
        depth[..., :] = value
        return depth

    assert not compare(frames, Plane(harm), precision=precision, sizes=[SIZE]).passed


def row(relative=0.0, drop=0.0, iou=0.0):
    scores = {"abs_rel": ScoreChange(0.2, 0.2 * (1 + drop), 0, 0), "iou": ScoreChange(0.8, 0.8 * (1 - iou), 0, 0)}
    return GateRow(SIZE, 1, 4, {"depth": MapError(1.0, 0.5, relative)}, scores)


@pytest.mark.parametrize(
    ("precision", "rows", "passes"),
    [
        ("fp32", [row(), row(relative=9e-5, drop=0.5)], True),
        ("fp32", [row(), row(relative=2e-4)], False),
        ("bf16", [row(relative=0.1, drop=0.0049)], True),
        ("bf16", [row(drop=-0.5), row(drop=0.0051)], False),
        ("int8", [row(relative=0.1, drop=0.0149)], True),
        ("int8", [row(iou=0.016)], False),
        ("int8", [row(drop=math.nan)], False),
        ("fp32", [row(relative=math.nan)], False),
    ],
)
def test_the_bound_holds_at_every_size_and_batch(precision, rows, passes):
    assert Parity(precision, gate.BOUNDS[precision], "plain", "frames", 2, rows).passed is passes


@pytest.mark.parametrize(
    ("size", "stride", "largest", "dynamic", "expected"),
    [
        ((128, 160), 1, 2048, True, [(128, 160), (96, 120), (160, 200)]),
        ((128, 160), 32, 2048, True, [(128, 160), (96, 128), (160, 224)]),
        ((128, 160), 64, 192, True, [(128, 192), (192, 192)]),
        ((30, 40), 32, 2048, True, [(32, 64), (64, 96)]),
        ((128, 160), 1, 2048, False, [(128, 160)]),
    ],
)
def test_sizes_are_those_a_graph_can_take(size, stride, largest, dynamic, expected):
    network = Plane()
    network.stride = stride
    traced = TracedGraph(ExportGraph(network, ["depth"]), None, True, dynamic, largest, size)
    sizes = gate.sizes_of(traced)
    assert sizes[: len(expected)] == expected
    assert all(side % stride == 0 and side <= largest for size in sizes for side in size)


def test_a_protocol_without_the_usual_metrics_is_replaced():
    assert gate.protocol_of(recipe("eval.protocol=nyu-bts")).name == "nyu-bts"
    assert gate.protocol_of(recipe("eval.protocol=legacy-001")).name == "plain"


def test_the_report_says_what_was_measured(frames, tmp_path):
    parity = compare(frames, Plane(lambda depth: depth + 0.01), sizes=[SIZE])
    parity = replace(parity, notes=["A note."])
    parity_report.write(parity, tmp_path, title="Parity of a plane")
    text = (tmp_path / parity_report.TEXT).read_text(encoding="utf-8")
    assert "FAILED" in text and "A note." in text and "48x32" in text and "0.01 m" in text
    assert "rendered rooms" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(parity_report.FILES)
    assert (tmp_path / parity_report.PICTURE).read_bytes().startswith(b"\x89PNG")
