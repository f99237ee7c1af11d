"""The scripts of benchmarks/peers, with small packages in place of the peers, which are installed apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from checkpoints import write_checkpoint
from paths import ROOT
from scripts import load_script

PEERS = ROOT / "benchmarks" / "peers"
SMALL = ["data.size=32,64", "data.frames=12", "data.val_fraction=0.5"]
# The formulas of euler-eval 2.30.0, in NumPy, with `shift` added to AbsRel.
EULER = """
import numpy as np
from types import SimpleNamespace
SHIFT = {shift}
KEYS = ("absrel", "sqrel", "mae", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")

def _metrics(p, d):
    e, ratio = np.log(p) - np.log(d), np.maximum(p / d, d / p)
    values = [np.mean(abs(p - d) / d) + SHIFT, np.mean((p - d) ** 2 / d), np.mean(abs(p - d))]
    values += [np.sqrt(np.mean((p - d) ** 2)), np.sqrt(np.mean(e ** 2)), np.mean(abs(np.log10(p) - np.log10(d)))]
    values += [np.sqrt(np.mean(e ** 2) - np.mean(e) ** 2), *(np.mean(ratio < 1.25 ** power) for power in (1, 2, 3))]
    return dict(zip(KEYS, map(float, values)))

def evaluate_dense_depth_sample(depth_pred, depth_gt, valid_mask=None, *, alignment="none", min_valid_pixels=10):
    p, d, valid = depth_pred.astype(float), depth_gt.astype(float), valid_mask & (depth_gt > 0)
    if alignment == "affine":
        matrix = np.stack([p[valid], np.ones(valid.sum())], -1)
        scale, shift = np.linalg.lstsq(matrix, d[valid], rcond=None)[0]
        p = scale * p + shift
    valid &= p > 0
    if valid.sum() < min_valid_pixels:
        return None
    p, d = p[valid], d[valid]
    return SimpleNamespace(metrics=_metrics(p, d), pixels=(p, d), valid_pixels=len(p))

class DepthValidationAggregator:
    def __init__(self):
        self.found = []
    def update(self, found):
        self.found.append(found)
    def summary(self):
        mean = {{key: float(np.mean([each.metrics[key] for each in self.found])) for key in KEYS}}
        pool = _metrics(*(np.concatenate([each.pixels[side] for each in self.found]) for side in range(2)))
        return {{"standard": {{"image_mean": mean, "pixel_pool": pool}}}}
"""
YOLO = """
import numpy as np
import cv2
from types import SimpleNamespace

class YOLO:
    def __init__(self, weights):
        if weights == "none.pt":
            raise FileNotFoundError(f"{weights} is not here")
    def __call__(self, path, verbose):
        height, width = cv2.imread(path).shape[:2]
        depth = np.full((height, width), 3.0)
        return [SimpleNamespace(depth=SimpleNamespace(data=SimpleNamespace(cpu=lambda: depth)))]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"), *SMALL)


def packages(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def cross_check() -> ModuleType:
    return load_script("cross_check", PEERS)


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (2e-6, 1)])
def test_scores_that_are_off_by_a_millionth_are_found(
    checkpoint: Path,
    cross_check: ModuleType,
    tmp_path: Path,
    shift: float,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = packages(tmp_path, euler_eval=EULER.format(shift=shift))
    words = [str(checkpoint), "--packages", str(made), "--protocol", "plain", "affine-depth"]
    assert cross_check.main(words) == code
    out = capsys.readouterr().out
    assert ("NOT EQUAL to 1e-06" in out) == bool(code) and "Aligned by euler-eval: AbsRel" in out
    assert out.count("| delta3") == 2 and "irmse (1000 sqrt" in out


def test_an_evaluator_that_is_not_there_is_one_line(checkpoint: Path, cross_check: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"euler-eval in .* does not run: ModuleNotFoundError"):
        cross_check.main([str(checkpoint), "--packages", str(tmp_path), "--protocol", "plain", "--frames", "1"])


def test_peers_are_scored_on_the_same_photographs_and_missing_weights_are_a_row(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(packages(tmp_path, ultralytics=YOLO)))
    script = load_script("given_weights", PEERS)
    words = [str(checkpoint), "--frames", "3"]
    words += ["--ultralytics", f"{sys.executable}=here.pt", "--ultralytics", f"{sys.executable}=none.pt"]
    words += ["--depth-estimation", f"{tmp_path}/nowhere=zoedepth"]
    assert script.main(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    ours, peer, without, nowhere = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert ours[0] == "depthray" and all(float(cell) >= 0 for cell in ours[2:])
    assert peer[1] == "here.pt" and all(float(cell) >= 0 for cell in peer[2:])
    assert "not run: no weights: none.pt: none.pt is not here" in without[2] and set(without[3:]) == {""}
    assert "not run" in nowhere[2] and "No such file" in nowhere[2]


def test_disparities_are_fitted_alone(checkpoint: Path, tmp_path: Path) -> None:
    script = load_script("given_weights", PEERS)
    np.save(tmp_path / "000000.npy", np.array([[0.5, 0.0], [-1.0, 4.0]], np.float32))
    saved = script.Saved(tmp_path, {"a": "000000"}, "disparity")
    depth = saved({"id": ["a"], "image": None})["depth"]
    assert depth.flatten().tolist() == pytest.approx([2.0, 1000.0, 1000.0, 0.25])


def test_a_peer_without_its_package_says_so() -> None:
    command = [sys.executable, str(PEERS / "predict_depth_estimation.py"), "zoedepth", "frames", "out"]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.startswith("no weights: zoedepth: No module named 'depth_estimation'")
