"""Several data sets as one source: names, sides, keys and shards of each."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frames import folder_dataset, read_index, write_index

from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.mixing.joined_source import JoinedSource, JoinedStored
from depthray.data.source import EncodedSource, ShardedSource, StoredSource
from depthray.data.sources import open_source
from depthray.data.split import split
from depthray.errors import DataError, UsageError


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of different size, the second with declared sides, and shards of each."""
    root = tmp_path_factory.mktemp("sets")
    folders = {
        "near": folder_dataset(root / "near", scenes=3, per_scene=4, size=(24, 32)),
        "far": folder_dataset(root / "far", scenes=4, per_scene=2, size=(40, 30)),
    }
    rows = read_index(folders["far"])
    for row in rows:
        row["split"] = {"scene-0": "val", "scene-1": "test"}.get(row["scene"], "train")
    write_index(folders["far"], rows)
    for name, folder in list(folders.items()):
        source = open_source(Data(source="folder", root=str(folder)))
        packing.pack(source, root / f"{name}-packed", frames_per_shard=5, provenance={"name": name})
        folders[f"{name}-packed"] = root / f"{name}-packed"
    return folders


def joined(roots: dict[str, Path], *names: str, **options: Any) -> JoinedSource:
    sets = [{"root": str(roots[name])} for name in names]
    source = open_source(Data(sets=sets, **options))
    assert isinstance(source, JoinedSource)
    return source


def test_frames_are_those_of_the_sets_called_by_their_names(roots: dict[str, Path]) -> None:
    source = joined(roots, "near", "far")
    alone = [open_source(Data(source="folder", root=str(roots[name]))) for name in ("near", "far")]
    assert len(source.frames) == 20 and list(source.frames) == [source.frames[i] for i in range(20)]
    assert source.frames[-1] == source.frames[19] == source.frames[19:][0]
    for index, name, own, frames in ((0, "near", 0, alone[0]), (11, "near", 11, alone[0]), (12, "far", 0, alone[1])):
        native, sample, frame = frames.read(own), source.read(index), source.frames[index]
        assert np.array_equal(sample["depth"], native["depth"]) and np.array_equal(sample["image"], native["image"])
        assert sample["id"] == frame.id == f"{name}/{native['id']}"
        assert sample["scene"] == frame.scene == f"{name}/{native['scene']}"
        assert sample["source"] == frame.source == name
    with pytest.raises(IndexError):
        source.frames[20]


def test_each_set_is_split_by_itself(roots: dict[str, Path]) -> None:
    data = Data(source="folder", root=str(roots["near"]))
    near, far = (open_source(data.model_copy(update={"root": str(roots[name])})).frames for name in ("near", "far"))
    both = split(joined(roots, "near", "far").frames, Data())
    for side, one, two in zip(both, split(near, data), split(far, data), strict=True):
        assert side == [*one, *(12 + index for index in two)]


def test_the_keys_are_those_that_all_sets_have(roots: dict[str, Path]) -> None:
    rows = read_index(roots["far"])
    camera = dict.fromkeys(("fx", "fy", "cx", "cy"), "20")
    folder = folder_dataset(roots["far"].parent / "camera", scenes=2, per_scene=1, size=(16, 16))
    write_index(folder, [{**row, **camera} for row in read_index(folder)])
    source = joined({**roots, "camera": folder}, "camera", "far")
    assert "intrinsics" not in source.keys and len(rows) == 8
    assert source.read(0).keys() == source.read(2).keys() == {"image", "depth", "id", "scene", "source"}
    with pytest.raises(DataError, match=r"data\.sets: 'far': .* data\.inputs wants 'mask', which this data set lacks"):
        joined(roots, "far", "near", inputs=("image", "mask"))


def test_sets_in_shards_are_one_set_in_shards(roots: dict[str, Path]) -> None:
    source = joined(roots, "near-packed", "far-packed")
    assert isinstance(source, JoinedStored) and isinstance(source, ShardedSource) and isinstance(source, StoredSource)
    assert source.shard_numbers.tolist() == [0] * 5 + [1] * 5 + [2] * 2 + [3] * 5 + [4] * 3
    assert not source.remote
    source.hold([0, 4])
    source.download(3)
    source.refuse_misfit(range(5))
    stored, metres = (pickle.loads(pickle.dumps(source)).read_stored(13), source.read(13))  # noqa: S301
    assert stored["id"] == metres["id"] == "far-packed/rgb/s0-001"
    assert np.allclose(stored["depth"] / stored["depth_scale"][0], metres["depth"])


def test_of_sets_of_different_forms_those_in_shards_have_some(roots: dict[str, Path]) -> None:
    source = joined(roots, "near-packed", "far")
    assert isinstance(source, ShardedSource) and not isinstance(source, StoredSource | EncodedSource)
    assert source.shard_numbers.tolist() == [0] * 5 + [1] * 5 + [2] * 2 + [3] * 8
    source.hold(range(4))  # the folder has nothing to open
    assert not isinstance(joined(roots, "near", "far"), ShardedSource)
    assert source.read(0)["depth"].dtype == source.read(12)["depth"].dtype == np.float32
    assert source.faults(13) == []


def test_the_fingerprint_is_of_the_frames_in_their_order(roots: dict[str, Path]) -> None:
    prints = {
        joined(roots, *names).fingerprint for names in (("near", "far"), ("far", "near"), ("near", "near-packed"))
    }
    assert len(prints) == 3
    renamed = Data(sets=[{"name": "x", "root": str(roots["near"])}, {"name": "y", "root": str(roots["far"])}])
    assert open_source(renamed).fingerprint == joined(roots, "near", "far").fingerprint


def test_one_set_with_weight_is_opened_as_it_is(roots: dict[str, Path]) -> None:
    sets = [{"root": str(roots["near"])}, {"root": "/nowhere", "weight": 0}]
    source = open_source(Data(sets=sets))
    alone = open_source(Data(source="folder", root=str(roots["near"])))
    assert type(source) is type(alone) and source.fingerprint == alone.fingerprint


@pytest.mark.parametrize(
    ("two", "message"),
    [
        ({"root": "/nowhere/far"}, r"data\.sets: 'far': /nowhere/far does not exist"),
        ({"root": "/nowhere/far", "source": "folder"}, r"data\.sets: 'far': .*/nowhere/far"),
        ({"name": "far"}, r"data\.sets: 'far': has neither a root nor a source"),
        ({"root": "FAR", "encoding": "uint8_10m", "source": "kitti"}, r"data\.sets: 'FAR': "),
    ],
)
def test_a_set_that_cannot_be_opened_is_named(roots: dict[str, Path], two: dict[str, str], message: str) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        open_source(Data(sets=[{"root": str(roots["near"])}, two]))
