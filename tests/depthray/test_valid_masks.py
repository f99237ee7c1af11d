"""A predicted mask of valid pixels from a checkpoint to arrays, files and answers of a service."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint, write_masked
from PIL import Image

from depthray.__main__ import main
from depthray.predict import Predictor, load
from serve.http import codec
from serve.http import query as options
from serve.registry import golden


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked(tmp_path_factory.mktemp("run"), "data.size=64,96")


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return load(checkpoint)


RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "room.png")
    return tmp_path / "room.png"


def test_depth_knows_where_it_is_valid(predictor: Predictor) -> None:
    depth, maps = predictor.predict(RGB), predictor.maps(RGB)
    assert depth.valid is not None and depth.valid.dtype == bool and 0.05 < depth.valid.mean() < 0.95
    assert np.array_equal(depth.valid, maps["valid"] >= 0.5) and {*maps} == {"depth", "valid"}
    stored = cv2.imdecode(np.frombuffer(depth.png16(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(stored > 0, depth.valid) and depth.metres.min() > 0
    kept = cv2.imdecode(np.frombuffer(depth.png16(keep_invalid=True), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (kept > 0).all() and np.array_equal(kept[depth.valid], stored[depth.valid])
    assert len(depth.points()) == depth.valid.sum() and len(depth.points(keep_invalid=True)) == depth.size
    grey = depth.colour()[~depth.valid]
    assert (grey == grey[0]).all() and not (depth.colour()[depth.valid] == grey[0]).all(axis=1).any()
    restore, given = depth.__reduce__()  # as when it is pickled
    restored: Any = restore(*given)
    assert np.array_equal(restored.valid, depth.valid)
    part: Any = depth[:4]
    assert part.valid is None  # as the image, it is of other pixels


def test_a_network_without_has_none(tmp_path: Path) -> None:
    depth = load(write_checkpoint(tmp_path)).predict(RGB)
    assert depth.valid is None and len(depth.points()) == depth.size


def test_passes_average_its_logits(predictor: Predictor, checkpoint: Path) -> None:
    flipped, plain = load(checkpoint, flip=True), predictor.maps(RGB)["valid"]
    mirrored = predictor.maps(np.ascontiguousarray(RGB[:, ::-1]))["valid"][:, ::-1]
    mean = flipped.maps(RGB)["valid"]
    assert np.abs(plain - mirrored).max() > 0.02
    logit = np.mean([np.log(each / (1 - each)) for each in (plain, mirrored)], axis=0)
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-logit)), atol=0.02)  # resized as probabilities, not logits
    assert load(checkpoint, tiles=2).maps(np.tile(RGB, (3, 3, 1)))["valid"].shape == (144, 192)


@pytest.mark.parametrize("keep", [False, True])
def test_files_have_0_where_it_says_no(
    predictor: Predictor, checkpoint: Path, image: Path, tmp_path: Path, capsys: Any, keep: bool
) -> None:
    out, maps = tmp_path / "out", predictor.maps(image)
    flags = ["--format", "png,npy,npz,ply,glb,colour", "--out", str(out), *(["--keep-invalid"] if keep else [])]
    assert main(["predict", str(checkpoint), str(image), *flags]) == 0
    there = np.ones_like(maps["valid"], bool) if keep else maps["valid"] >= 0.5
    stored = cv2.imread(str(out / "room.depth.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(stored > 0, there) and np.array_equal(np.load(out / "room.depth.npy") > 0, there)
    header = (out / "room.ply").read_bytes().split(b"end_header")[0].decode()
    assert int(header.split("element vertex ")[1].split()[0]) == there.sum()
    with np.load(out / "room.depth.npz") as planes:  # which has the map: nothing is lost
        assert {*planes.files} == {"depth", "valid"} and np.array_equal(planes["depth"], maps["depth"])
    assert f"valid {(maps['valid'] >= 0.5).mean():.1%}" in capsys.readouterr().out


def answer(query: str, maps: dict[str, Any]) -> bytes:
    pairs = [(name, text) for name, _, text in (part.partition("=") for part in query.split("&"))]
    return codec.write(maps, RGB, options.parse(pairs, None), points=10**6).data


def test_a_service_answers_with_it(predictor: Predictor) -> None:
    maps: dict[str, Any] = predictor.maps(RGB)
    there = maps["valid"] >= 0.5
    for query, expected in (("format=png", there), ("format=png&keep_invalid=true", np.ones_like(there))):
        stored = cv2.imdecode(np.frombuffer(answer(query, maps), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored > 0, expected)
    assert np.array_equal(np.load(io.BytesIO(answer("format=npy", maps))) > 0, there)
    shown = cv2.imdecode(np.frombuffer(answer("plane=valid&format=png", maps), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.dtype == np.uint8 and np.array_equal(shown == 255, there)
    header = answer("format=ply", maps).split(b"end_header")[0].decode()
    assert int(header.split("element vertex ")[1].split()[0]) == there.sum()
    with np.load(io.BytesIO(answer("format=npz", maps))) as planes:
        assert np.array_equal(planes["depth"], maps["depth"]) and np.array_equal(planes["valid"], maps["valid"])
    assert golden.fault_of("valid", maps["valid"]) == "" and golden.fault_of("valid", maps["valid"] + 1)
