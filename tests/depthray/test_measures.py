"""`depthray.calibrate`, `robust` and `card` as functions: what the commands do, and their mistakes by keyword."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

import depthray
from depthray.checkpoints import manifest
from depthray.errors import CheckpointError, UsageError

SMALL = ("data.size=32,64", "data.frames=16", "data.val_fraction=0.5")
SPARSE = ("data.inputs=[image,sparse]", "data.sparse.samples=50")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"), *SMALL)


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("completion"), *SMALL, *SPARSE)


def test_confidence_is_calibrated(checkpoint: Path, tmp_path: Path) -> None:
    written = depthray.calibrate(checkpoint, confidence=True, flip=True, split="all", out=tmp_path / "out")
    fitted = manifest.verify(written).temperature
    assert written.parent == tmp_path / "out" and fitted is not None and fitted.of == "flip"
    with pytest.raises(UsageError, match=r"^out=.*exists; choose another folder"):
        depthray.calibrate(checkpoint, out=tmp_path / "out")
    plain = depthray.calibrate(written, remove=True, out=tmp_path / "plain")
    assert manifest.verify(plain).temperature is None


def test_points_of_a_completion_network_need_its_samples(completion: Path, tmp_path: Path) -> None:
    import cv2

    image, sparse = tmp_path / "x.png", np.zeros((32, 64), np.uint16)
    sparse[4::8, 4::8] = 2000
    (tmp_path / "sparse").mkdir()
    assert cv2.imwrite(str(image), np.full((32, 64, 3), 90, np.uint8))
    assert cv2.imwrite(str(tmp_path / "sparse" / "x.png"), sparse)
    # An untrained network of completion answers with its samples: 2 m everywhere, and a tape says 3 m.
    points = "\n".join(f"{image},{x},{y},3.0" for x in range(2, 60, 6) for y in (5, 20))
    (tmp_path / "points.csv").write_text(f"image,x,y,metres\n{points}\n")
    with pytest.raises(UsageError, match="this network needs sparse= as well"):
        depthray.calibrate(completion, points=tmp_path / "points.csv", out=tmp_path / "out")
    written = depthray.calibrate(
        completion, points=tmp_path / "points.csv", sparse=tmp_path / "sparse", out=tmp_path / "out"
    )
    fitted = manifest.verify(written).calibration
    assert fitted is not None and np.exp(fitted.shift) == pytest.approx(1.5, rel=0.01)
    with pytest.raises(UsageError, match="sparse= is of photographs: give points= too"):
        depthray.calibrate(completion, sparse=tmp_path / "sparse", out=tmp_path / "again")


def test_robustness_is_measured_and_written(checkpoint: Path, completion: Path, tmp_path: Path) -> None:
    (network,) = depthray.robust(checkpoint, only=["noise"], frames=1, out=tmp_path / "out").networks
    assert [each.corruption for each in network.corruptions] == ["noise"] and network.clean[0].metric == "abs_rel"
    assert (tmp_path / "out" / "robustness.json").is_file()
    with pytest.raises(UsageError, match="dropout is of sparse depth, and this network reads image"):
        depthray.robust(checkpoint, only=["dropout"])
    with pytest.raises(UsageError, match="crop is of photographs alone, and this network reads image, sparse"):
        depthray.robust(completion, only=["crop"])


def test_a_card_is_text(checkpoint: Path) -> None:
    assert depthray.card(checkpoint).startswith("#")
    with pytest.raises(CheckpointError, match="/nowhere: neither a checkpoint nor a run folder"):
        depthray.card("/nowhere")
