"""`depthray data stats` counts right and scores the trivial predictors; `render` writes what `stats` reads."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from frames import folder_dataset, read_index, write_index

from depthray.__main__ import main
from depthray.audit.stats import collect_stats, quantile
from depthray.config.sections import Data
from depthray.data.sources import open_source

SIZE = (8, 10)


@pytest.fixture
def root(tmp_path):
    """Three scenes of two frames; the depth of each is flat: 1, 1, 2, 2, 4, 4 m, a fifth of it unmeasured."""
    root = folder_dataset(tmp_path / "set", per_scene=2, size=SIZE)
    for row in read_index(root):
        depth = np.full(SIZE, 1000 << int(row["scene"][-1]), np.uint16)
        depth[:, :2] = 0
        cv2.imwrite(str(root / row["depth"]), depth)
    sides = {"scene-0": "train", "scene-1": "train", "scene-2": "val"}
    write_index(root, [row | {"split": sides[row["scene"]]} for row in read_index(root)])
    return root


def taken(root, **options):
    section = Data(source="folder", root=str(root), **options)
    return collect_stats(open_source(section), section, protocol="plain")


def test_counts(root):
    found = taken(root)
    assert (found.frames, found.scenes) == (6, 3)
    assert found.sides == {"train": 4, "val": 2, "test": 0}
    assert found.sizes == {"10x8": 6}
    assert found.sources == {"test": 6}
    assert found.valid_share == pytest.approx(0.8)
    assert found.depth_percentiles | {} == {"p1": 1, "p5": 1, "p25": 1, "p50": 2, "p75": 4, "p95": 4, "p99": 4}


def test_limits_decide_what_is_valid(root):
    found = taken(root, max_depth=3)
    assert found.valid_share == pytest.approx(0.8 * 4 / 6)
    assert found.depth_percentiles["p99"] == 2


def test_trivial_predictors_know_only_the_training_frames(root):
    found = taken(root)
    assert found.trivial["mean map"]["abs_rel"] == pytest.approx((4 - 1.5) / 4)  # mean of 1 and 2 m against 4 m
    assert found.trivial["median"]["mae"] in (pytest.approx(3), pytest.approx(2.5), pytest.approx(2))


def test_without_a_split_the_rest_is_reported(root):
    write_index(root, [row | {"split": "", "scene": "one"} for row in read_index(root)])
    found = taken(root)
    assert found.trivial == {}
    assert "there is 1 scene" in found.remark
    assert found.frames == 6


def test_quantiles_are_those_of_the_pixels():
    values = np.random.default_rng(0).integers(0, 5000, 999)
    counts = np.bincount(values, minlength=65536)
    assert quantile(counts, 0.5) * 1000 == np.median(values)
    assert quantile(counts, 0.0) == 0
    assert quantile(np.zeros(10, np.int64), 0.5) == 0


def test_command_prints_tables(root, capsys):
    assert main(["data", "stats", str(root)]) == 0
    out = capsys.readouterr().out
    assert "train 4, val 2, test 0" in out
    assert "mean map" in out
    assert "0.6250" in out


def test_command_prints_json(root, capsys):
    assert main(["data", "stats", str(root), "--json", "--protocol", "nyu-bts", "data.max_depth=3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["depth_percentiles"]["p99"] == 2


def test_unknown_protocol(root, capsys):
    assert main(["data", "stats", str(root), "--protocol", "nyu-bst"]) == 2
    assert "did you mean 'nyu-bts'" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["folder", "shards"])
def test_rendered_rooms_are_read_back(tmp_path, capsys, layout):
    out = str(tmp_path / "rooms")
    assert main(["data", "render", out, "--frames", "9", "--size", "24", "32", "--layout", layout]) == 0
    assert main(["data", "stats", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert (report["frames"], report["sizes"]) == (9, {"32x24": 9})
    assert {"image", "depth", "semantics", "instances"} <= {*report["keys"]}, "not only those that a recipe reads"
    assert main(["data", "check", out]) == 0
