"""A folder of image files with an index: what it reads, and its messages about bad files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from frames import depth_map, folder_dataset, read_index, smooth_image, write_index

from depthray.batch import COLOURS, MAPS
from depthray.config.sections import Data
from depthray.data.source import INPUTS, LABELS, MEASURABLE
from depthray.data.sources import check, open_source, recognise
from depthray.errors import DataError, UsageError

SIZE = (48, 64)


@pytest.fixture
def root(tmp_path):
    return folder_dataset(tmp_path / "set", size=SIZE)


def section(root, **values):
    return Data(source="folder", root=str(root), **values)


def change_row(root, number, **values):
    rows = read_index(root)
    rows[number] |= values
    write_index(root, rows)


def add_columns(root, **columns):
    """Give every row these values."""
    write_index(root, [row | columns for row in read_index(root)])


def test_reads_what_was_written(root):
    sample = open_source(section(root, inputs=("image", "semantics"))).read(5)  # scene 1, frame 1
    np.testing.assert_allclose(sample["depth"], depth_map(101, SIZE), atol=5.1e-4)
    assert np.abs(sample["image"].astype(int) - smooth_image(101, SIZE)).mean() < 6
    assert (sample["semantics"] == 2).all()
    assert sample["semantics"].dtype == np.int32
    assert (sample["id"], sample["scene"], sample["source"]) == ("rgb/s1-001", "scene-1", "test")


def write_pfm(path, depth, *, order="<", colours=False):
    kind, scale = b"PF" if colours else b"Pf", b"-1.0" if order == "<" else b"1.0"
    header = kind + f"\n{depth.shape[1]} {depth.shape[0]}\n".encode() + scale + b"\n"
    path.write_bytes(header + depth[::-1].astype(f"{order}f4").tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_may_be_a_portable_float_map(root, order):
    depth = depth_map(0, SIZE)
    depth[0, :2] = np.inf, 0.5
    for row in read_index(root):
        write_pfm(root / row["depth"].replace(".png", ".pfm"), depth, order=order)
    write_index(root, [row | {"depth": row["depth"].replace(".png", ".pfm")} for row in read_index(root)])
    depth[0, 0] = 0
    np.testing.assert_array_equal(open_source(section(root, encoding="float_m")).read(0)["depth"], depth)
    half = open_source(section(root, encoding="float32*0.5")).read(0)["depth"]
    np.testing.assert_allclose(half, depth / 2)


@pytest.mark.parametrize("damage", [b"", b"Pf\n64 48\n-1.0\n", b"Pf\n64 48\n-1.0\nabcd", b"Pf 6 -4 1\n" + bytes(96)])
def test_a_damaged_float_map_is_one_line(root, damage):
    change_row(root, 0, depth="depth/bad.pfm")
    (root / "depth/bad.pfm").write_bytes(damage)
    with pytest.raises(DataError, match=r"bad\.pfm: not a readable \.pfm file"):
        open_source(section(root, encoding="float_m")).read(0)
    write_pfm(root / "depth/bad.pfm", np.ones((48, 192)), colours=True)
    with pytest.raises(DataError, match=r"bad\.pfm: not a readable \.pfm file"):
        open_source(section(root, encoding="float_m")).read(0)


def test_depth_may_have_any_unit(root):
    for path in (root / "depth").glob("*.png"):
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), stored * np.uint16(10))
    source = open_source(section(root, encoding="uint16/10000"))
    np.testing.assert_allclose(source.read(5)["depth"], depth_map(101, SIZE), atol=5.1e-4)
    assert source.fingerprint != open_source(section(root)).fingerprint


def test_image_is_rgb(root):
    cv2.imwrite(str(root / "rgb/s0-000.jpg"), np.full((*SIZE, 3), (0, 0, 255), np.uint8))  # red, in OpenCV's order
    red, green, blue = open_source(section(root)).read(0)["image"].reshape(-1, 3).mean(axis=0)
    assert red > 250 > 5 > green + blue


def test_only_wanted_maps_are_read(root):
    (root / "labels/s0-000.png").unlink()
    assert set(open_source(section(root)).read(0)) == {"image", "depth", "id", "scene", "source"}


def test_index_may_have_another_name(root):
    (root / "index.csv").rename(root / "mine.csv")
    assert len(open_source(section(root / "mine.csv")).frames) == 12
    assert recognise(root / "mine.csv") == "folder"


def test_all_optional_columns(root):
    cv2.imwrite(str(root / "mask.png"), np.eye(*SIZE, dtype=np.uint8))
    background = {"background": "rgb/s0-000.jpg", "mask": "mask.png", "instances": "labels/s0-000.png"}
    add_columns(root, **background, fx="60", fy="61", cx="32", cy="24", split="test")
    source = open_source(section(root, inputs=("image", "background", "mask", "instances")))
    sample = source.read(0)
    assert sample["mask"].sum() == min(SIZE)
    assert sample["background"].shape == (*SIZE, 3)
    assert sample["instances"].max() == 1
    assert sample["intrinsics"].tolist() == [[60, 0, 32], [0, 61, 24], [0, 0, 1]]
    assert source.frames[0].split == "test"


def test_lossy_mask_is_cut_in_the_middle(root):
    cv2.imwrite(str(root / "mask.jpg"), np.full(SIZE, 100, np.uint8))
    add_columns(root, mask="mask.jpg")
    assert not open_source(section(root, inputs=("image", "mask"))).read(0)["mask"].any()


def test_npy_depth_in_metres(root):
    np.save(root / "depth.npy", depth_map(3, SIZE))
    add_columns(root, depth="depth.npy")
    source = open_source(section(root, encoding="float_m"))
    np.testing.assert_array_equal(source.read(0)["depth"], depth_map(3, SIZE))


def test_source_survives_pickling(root):
    source = open_source(section(root))
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - as loader processes do
    np.testing.assert_array_equal(copy.read(2)["image"], source.read(2)["image"])


def test_missing_file_is_found_at_opening(root):
    (root / "depth/s1-002.png").unlink()
    with pytest.raises(DataError, match=r"depth/s1-002\.png: No such file.*relative to"):
        open_source(section(root))


def test_symlink_loop_is_a_data_error(root):
    (root / "rgb/s0-000.jpg").unlink()
    (root / "rgb/s0-000.jpg").symlink_to(root / "rgb/s0-000.jpg")
    with pytest.raises(DataError, match=r"s0-000\.jpg: Too many levels"):
        open_source(section(root))


@pytest.mark.parametrize("content", [b"", b"GIF?", b"\x89PNG\r\n\x1a\n" + bytes(20)])
@pytest.mark.parametrize("name", ["rgb/s0-000.jpg", "depth/s0-000.png"])
def test_unreadable_image_names_the_file(root, name, content):
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: not a readable image \({len(content)} bytes\)"):
        open_source(section(root)).read(0)


@pytest.mark.parametrize("name", ["rgb/s0-000.jpg", "depth/s0-000.png"])
def test_truncated_image_names_the_file(root, name):
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"{name}: not a readable image"):
        open_source(section(root)).read(0)


def test_pickled_npy_is_refused(root):
    np.save(root / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    add_columns(root, depth="bad.npy")
    with pytest.raises(DataError, match=r"bad\.npy: not a readable \.npy file"):
        open_source(section(root, encoding="float_m")).read(0)


@pytest.mark.parametrize("shape", [(48, 63), (24, 32), (64, 48)])
def test_size_mismatch_names_both_sizes(root, shape):
    cv2.imwrite(str(root / "depth/s0-000.png"), np.ones(shape, np.uint16))
    with pytest.raises(DataError, match=f"size mismatch, depth is {shape[1]}x{shape[0]} but rgb is 64x48"):
        open_source(section(root)).read(0)


def test_colour_depth_is_refused(root):
    cv2.imwrite(str(root / "depth/s0-000.png"), np.ones((*SIZE, 3), np.uint16))
    with pytest.raises(DataError, match=r"s0-000\.png: depth has shape \(48, 64, 3\)"):
        open_source(section(root)).read(0)


def test_file_changed_during_the_run(root):
    source = open_source(section(root))
    os.utime(root / "rgb/s0-000.jpg", ns=(1, 1))
    with pytest.raises(DataError, match=r"rgb/s0-000\.jpg: changed since"):
        source.read(0)


def test_empty_index(root):
    (root / "index.csv").write_text("rgb,depth,scene\n")
    with pytest.raises(DataError, match="no frames"):
        open_source(section(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rgb,scene\na,b\n", "no column 'depth'"),
        ("a.jpg,a.png\n", "no column 'rgb'.*'a.jpg,a.png'"),
        ("", "no column 'rgb'"),
        ("rgb,depth,scene\na.jpg,a.png\n", r"frame 0 \(line 2\) has no scene"),
        ("rgb,depth,scene,labels\na,a,s,l\nb,b,s,\n", r"frame 1 \(line 3\) has no labels"),
    ],
)
def test_bad_index(tmp_path, text, message):
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(section(tmp_path))


def test_index_that_is_no_text(tmp_path):
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00rgb")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        open_source(section(tmp_path))


def test_no_index(tmp_path):
    with pytest.raises(DataError, match=r"index\.csv: No such file"):
        open_source(section(tmp_path))
    with pytest.raises(DataError, match=r"no index\.csv there; .* `depthray data index"):
        recognise(tmp_path)


def test_double_ids_are_refused(root):
    change_row(root, 4, rgb="rgb/s0-000.jpg")
    with pytest.raises(DataError, match="1 frame ids are used twice, first 'rgb/s0-000'"):
        open_source(section(root))


@pytest.mark.parametrize("values", [{"fx": "x"}, {"fx": "0"}, {"cy": "nan"}])
def test_bad_intrinsics_name_the_frame(root, values):
    add_columns(root, **({"fx": "60", "fy": "61", "cx": "32", "cy": "24"} | values))
    with pytest.raises(DataError, match="frame 'rgb/s0-000'"):
        open_source(section(root)).read(0)


def test_input_the_set_lacks(root):
    with pytest.raises(DataError, match=r"data\.inputs wants 'instances'"):
        open_source(section(root, inputs=("image", "instances")))


def test_fingerprint_follows_files_and_encoding(root):
    first = open_source(section(root)).fingerprint
    assert open_source(section(root)).fingerprint == first
    assert open_source(section(root, encoding="uint16_256")).fingerprint != first
    (root / "depth/s0-000.png").write_bytes(b"other")
    assert open_source(section(root)).fingerprint != first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "foldr"}, r"data\.source='foldr' \(did you mean 'folder'"),
        ({"encoding": "uint16"}, r"data\.encoding='uint16'"),
        ({"inputs": ("imge",)}, r"'imge' \(did you mean 'image'"),
    ],
)
def test_unknown_values_of_the_section(values, message):
    with pytest.raises(UsageError, match=f"here: .*{message}"):
        check(Data(**values), where="here")


def test_vocabulary_is_that_of_batches():
    assert set(INPUTS) == {*COLOURS, *MAPS} - {"depth", MEASURABLE, *LABELS}


def test_ones_own_sensor_is_read_next_to_a_better_depth(root):
    (root / "raw").mkdir()
    for row in read_index(root):
        depth = cv2.imread(str(root / row["depth"]), cv2.IMREAD_UNCHANGED)
        depth[:, ::2] = 0
        cv2.imwrite(str(root / "raw" / Path(row["depth"]).name), depth)
    write_index(root, [row | {"sparse": f"raw/{Path(row['depth']).name}"} for row in read_index(root)])
    stored = section(root, inputs=("image", "sparse"), sparse={"pattern": "stored"})
    sample = open_source(stored).read(2)
    assert sample["sparse"].dtype == np.float32 and not sample["sparse"][:, ::2].any()
    np.testing.assert_array_equal(sample["sparse"][:, 1::2], sample["depth"][:, 1::2])
    assert "sparse" not in open_source(section(root, inputs=("image", "sparse"))).read(2)  # made of the depth
