"""Parts of a data set that Ray's workers convert or predict: the files are those that one process makes.

A user's mistake comes back as itself, and a worker that is lost costs no frame.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from frames import folder_dataset

from cluster.convert import main
from depthray.__main__ import main as command
from depthray.config.sections import Data
from depthray.data.sources import open_source
from depthray.errors import DepthrayError

OWN = '''
import os
import signal
from pathlib import Path

import numpy as np
from depthray.data.source import Frame

MARK = Path(r"{mark}")


class Deadly:
    """Frames of noise; whoever reads the sixth one first is killed."""

    frames = [Frame(f"f{{i}}", f"scene-{{i // 4}}", "", "mine") for i in range(10)]
    keys = frozenset({{"image", "depth"}})
    fingerprint = "f" * 64

    def read(self, index):
        if index == 5 and not MARK.exists():
            MARK.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        depth = np.full((48, 64), 1 + index, np.float32)
        return {{"image": image, "depth": depth, "id": f"f{{index}}", "scene": "", "source": "mine"}}

    def faults(self, index):
        return []


def open_source(section):
    return Deadly()
'''


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("cluster_address")
def test_two_workers_make_the_bytes_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_dataset(tmp_path / "files", scenes=4, per_scene=5)
    arguments = ["folder", str(root), "--frames-per-shard", "3"]
    assert main([*arguments, str(tmp_path / "one")]) == 0
    assert main([*arguments, str(tmp_path / "two"), "--workers", "2"]) == 0
    assert "20 frames in 7 shards" in capsys.readouterr().out.splitlines()[-2]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")

    (root / "depth" / "s3-004.png").write_bytes(b"no image")
    with pytest.raises(DepthrayError, match=r"frame 'rgb/s3-004': .*s3-004.png: not a readable image") as caught:
        main([*arguments, str(tmp_path / "bad"), "--workers", "2"])
    assert caught.value.exit_code == 3
    assert main([*arguments, str(tmp_path / "bad"), "--workers", "2", "--skip-bad"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "skipped 1 bad frame:"
    assert not list((tmp_path / "bad").glob(".tmp-*"))


@pytest.mark.usefixtures("cluster_address")
def test_a_set_predicted_by_two_workers_survives_the_loss_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mark, model = tmp_path / "killed", write_checkpoint(tmp_path / "run")
    (tmp_path / "mine.py").write_text(OWN.format(mark=mark))
    arguments = ["predict", str(model), "--data", str(tmp_path), "--source", "./mine.py", "--as-labels"]
    arguments += ["--frames-per-part", "2", "--out"]
    assert command([*arguments, str(tmp_path / "two"), "--workers", "2"]) == 0
    assert mark.exists() and "10 of 10 frames predicted in 5 shards" in capsys.readouterr().out
    assert command([*arguments, str(tmp_path / "one")]) == 0
    two = contents(tmp_path / "two")
    assert two == contents(tmp_path / "one") and not [name for name in two if name.startswith(".tmp-")]
    shards = open_source(Data(source="shards", root=str(tmp_path / "two")))
    assert [frame.id for frame in shards.frames] == [f"f{index}" for index in range(10)]
