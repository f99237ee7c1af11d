"""`depthray completion --holes`: frames with holes are found, filled, pictured, and scored where depth was hidden."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint

from depthray.__main__ import main

SIZE = (48, 64)
SPARSE = ("data.size=48,64", "data.inputs=[image,sparse]", "data.sparse.samples=50")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network, which answers with the spread samples."""
    return write_checkpoint(tmp_path_factory.mktemp("run"), *SPARSE)


def write_frames(root: Path, holes: list[int]) -> Path:
    """A near half and a far half, and a hole of so many columns in each frame."""
    root.mkdir()
    lines = ["rgb,depth,scene"]
    for number, width in enumerate(holes):
        image, depth = np.full((*SIZE, 3), 40, np.uint8), np.full(SIZE, 1000, np.uint16)
        image[:, 32:], depth[:, 32:] = 220, 3000
        depth[10:30, 20 : 20 + width] = 0
        assert cv2.imwrite(str(root / f"rgb{number}.png"), image)
        assert cv2.imwrite(str(root / f"depth{number}.png"), depth)
        lines.append(f"rgb{number}.png,depth{number}.png,s{number // 2}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


def test_holes_are_filled_and_scored(checkpoint: Path, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "frames", [0, 20, 16, 0, 12]), tmp_path / "out"
    words = [str(checkpoint), "--data", str(frames), "--split", "all", "--holes", "2", "--out", str(out)]
    assert main(["completion", *words]) == 0
    tree = json.loads((out / "holes.json").read_text())
    assert [frame["scene"] for frame in tree["frames"]] == ["s0", "s1"]  # one of each scene, the largest hole first
    assert tree["frames"][0]["holes"] == pytest.approx(400 / 3072) and 0 < tree["frames"][0]["hidden"] < 0.5
    means = tree["means"]
    assert {*means} == {"network", "spread", "bilateral"}
    assert means["network"]["rmse"] == pytest.approx(means["spread"]["rmse"], rel=1e-3)
    assert means["bilateral"]["rmse"] < means["spread"]["rmse"]  # colour says where the edge is
    assert 0 < means["bilateral"]["sharpness"] <= 1.05
    assert cv2.imread(str(out / "holes.png")).shape[1] > 4 * SIZE[1]
    assert "RMSE in hidden holes [m]" in (out / "holes.md").read_text()


@pytest.mark.parametrize(
    ("holes", "flags", "code", "message"),
    [
        ([0, 0], ["--holes", "2"], 3, "no frame has holes of 0.5% to 60% of its pixels"),
        ([9, 9], ["--holes", "2", "--samples", "5"], 2, "--samples cannot be combined with --holes"),
        ([9, 9], ["--holes", "0"], 2, "--holes 0: give a number of frames above 0"),
    ],
)
def test_mistakes_are_one_line(
    checkpoint: Path,
    tmp_path: Path,
    holes: list[int],
    flags: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames, out = write_frames(tmp_path / "frames", holes), tmp_path / "out"
    assert (
        main(["completion", str(checkpoint), "--data", str(frames), "--split", "all", *flags, "--out", str(out)])
        == code
    )
    assert message in capsys.readouterr().err and not out.exists()
