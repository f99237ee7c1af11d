"""Conversion by Ray's workers makes the shards that one process makes, and a user's mistake comes back as itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from frames import folder_dataset

from cluster.convert import main
from depthray.errors import DepthrayError


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
