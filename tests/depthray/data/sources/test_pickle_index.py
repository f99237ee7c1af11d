"""A pickled index: what it names is read, and nothing in it is ever run."""

from __future__ import annotations

import collections
import os
import pickle

import numpy as np
import pytest
from layouts_other import frame, pickle_index

from depthray.data.sources import open_source, recognise
from depthray.data.sources.pickle_index import fits, read_names
from depthray.errors import DataError


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Built:
    """Sets its state through a method when it is unpickled."""

    def __setstate__(self, state):
        raise AssertionError("run")

    def __getstate__(self):
        return {"a": 1}


def test_frames_are_read_in_metres(tmp_path):
    source = open_source(pickle_index(tmp_path))
    assert len(source.frames) == 6
    sample, true = source.read(4), frame(4)
    np.testing.assert_array_equal(sample["image"], true["image"])
    near = (true["depth"] > 0.5) & (true["depth"] < 3)
    assert near.any()
    np.testing.assert_allclose(sample["depth"][near], true["depth"][near], rtol=0.02)


def test_a_pause_of_capture_parts_scenes(tmp_path):
    scenes = [each.scene for each in open_source(pickle_index(tmp_path)).frames]
    assert scenes == ["stretch-0000"] * 3 + ["stretch-0001"] * 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_not_run(tmp_path, protocol):
    section, proof = pickle_index(tmp_path), tmp_path / "run"
    names = read_names(tmp_path / "index1.pkl")
    for content in (Hostile(proof), {**names, "x": Hostile(proof)}, {"a": [Hostile(proof)]}):
        (tmp_path / "index1.pkl").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match=r"index1\.pkl: asks for '(posix|nt)\.system'.*nothing was run"):
            open_source(section)
        assert not proof.exists()
    pickle.loads((tmp_path / "index1.pkl").read_bytes())  # noqa: S301 - proves that it would have run
    assert proof.exists()


@pytest.mark.parametrize(
    "content",
    [Built(), collections.OrderedDict(a="b"), {"a": os.getcwd}, np.ones(2), {"a": Built()}],
    ids=["object", "subclass", "function", "array", "value"],
)
def test_whatever_needs_a_class_is_refused(tmp_path, content):
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="asks for"):
        read_names(tmp_path / "index.pkl")


@pytest.mark.parametrize("content", [["a"], {"a": 1}, {1: "a"}, {"a": {"b": "c"}}, "a", {"a": b"b"}])
def test_whatever_is_no_dict_of_strings_is_refused(tmp_path, content):
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="holds no dict of colour name -> depth name"):
        read_names(tmp_path / "index.pkl")


def test_damage_is_refused_whatever_it_is(tmp_path):
    good = pickle.dumps({f"{number}.ppm": f"{number}.pgm" for number in range(9)})
    rng, path = np.random.default_rng(0), tmp_path / "index.pkl"
    for content in (b"", b"P\x00", b"Px\n.", b"not a pickle", *(good[:end] for end in range(0, len(good) - 1, 7))):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"index\.pkl: "):
            read_names(path)
    for _ in range(200):
        harmed = bytearray(good)
        harmed[rng.integers(len(good))] = rng.integers(256)
        path.write_bytes(harmed)
        try:
            names = read_names(path)
            assert all(type(name) is str for pair in names.items() for name in pair)
        except DataError:
            pass


def test_names_in_no_folder(tmp_path):
    section = pickle_index(tmp_path)
    (tmp_path / "train_depth").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"'d-.*\.pgm' is in none of the folders train_depth, test_depth, depth"):
        open_source(section)


def test_other_indexes_are_named_by_their_path(tmp_path):
    section = pickle_index(tmp_path)
    assert fits(tmp_path)
    (tmp_path / "index1.pkl").rename(tmp_path / "mine.pkl")
    with pytest.raises(DataError, match=r"no index\.pkl or index1\.pkl there; give the path"):
        open_source(section)
    assert recognise(tmp_path / "mine.pkl") == "pickle_index"
    assert len(open_source(section.model_copy(update={"root": str(tmp_path / "mine.pkl")})).frames) == 6
