"""The benchmark of the index runs, and what it makes up is what packing would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from scripts import load_script

from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.shards import index_files
from depthray.data.sources import open_source


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("index", ROOT / "benchmarks")


def test_a_made_up_index_is_like_one_that_was_written(script: Any, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    script.make_index(tmp_path / "made", 600)
    packing.pack(script.SmallFrames(600), tmp_path / "packed", provenance={}, frames_per_shard=script.PER_SHARD)
    index_files.write(tmp_path / "packed")
    made, packed = (open_source(Data(source="shards", root=str(tmp_path / name))) for name in ("made", "packed"))
    assert list(made.frames) == list(packed.frames) and made.keys == packed.keys
    one, two = ({path.name for path in (tmp_path / name / "index").iterdir()} for name in ("made", "packed"))
    assert one == two


def test_figures_of_a_process_of_its_own(script: Any, tmp_path: Path) -> None:
    script.make_index(tmp_path, 5000)
    found = script.measure(tmp_path)
    assert 0 < found["open"] < 30 and 0 < found["plan"] < 30 and found["private"] < 100
