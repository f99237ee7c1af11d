"""A folder of an export is complete and as it was written, or it is refused."""

import json
import os
from dataclasses import replace
from hashlib import sha256

import pytest
from exports import FILES, spec_of

from depthray.checkpoints.origin import Origin
from depthray.checkpoints.recorded_folder import seal
from depthray.errors import CheckpointError
from depthray.runtimes import export_folder
from depthray.runtimes.export_folder import Port


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "export"
    path.mkdir()
    for name in (*FILES["openvino"], "recipe.yaml", "metrics.json", "README.md"):
        (path / name).write_text(f"the bytes of {name}", encoding="utf-8")
    export_folder.write(path, spec_of("openvino"))
    return path


def test_what_was_written_is_read(folder):
    assert export_folder.verify(folder) == spec_of("openvino")
    assert export_folder.is_export(folder)
    assert not export_folder.is_export(folder.parent)
    opened = export_folder.read_folder(folder)
    assert opened.read_file("README.md") == b"the bytes of README.md"
    assert set(opened.files) == {path.name for path in folder.iterdir()} - {"model.json"}


def test_its_scores_and_facts_are_numbers_or_null(folder):
    origin = Origin("imagenet", licence="BSD-3-Clause", commercial=True)
    changed = spec_of("openvino", scores={"abs_rel": 1, "rmse": float("nan")}, tested={"worst": float("inf")})
    export_folder.write(folder, replace(changed, origin=origin))
    read = export_folder.read(folder)
    assert (read.scores, read.tested, read.origin) == ({"abs_rel": 1.0}, {"worst": None}, origin)


def test_its_identity_changes_with_any_of_its_files(folder):
    before = export_folder.identity(folder)
    assert before == sha256((folder / "model.json").read_bytes()).hexdigest()
    (folder / "README.md").write_text("another", encoding="utf-8")
    export_folder.write(folder, spec_of("openvino"))
    assert export_folder.identity(folder) != before


def test_a_flipped_bit_anywhere_is_found(folder):
    data = (folder / "model.json").read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(CheckpointError):
            export_folder.parse(bytes(flipped), where=folder)


@pytest.mark.parametrize("name", [*FILES["openvino"], "recipe.yaml", "metrics.json", "README.md"])
def test_changed_bytes_of_any_file_are_found(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.swapcase())
    with pytest.raises(CheckpointError, match=rf"{name}: damaged .* export the checkpoint again"):
        export_folder.verify(folder)
    with pytest.raises(CheckpointError, match=f"{name}: damaged"):
        export_folder.read_folder(folder).read_file(name)


def test_a_missing_an_extra_and_a_shorter_file_are_refused(folder):
    (folder / "model.bin").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model.bin: 5 bytes instead of 22"):
        export_folder.read(folder)
    (folder / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model.bin is missing"):
        export_folder.read(folder)
    (folder / "model.bin").write_text("the bytes of model.bin", encoding="utf-8")
    assert export_folder.verify(folder)
    (folder / "libcustom.so").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"libcustom.so does not belong to this export"):
        export_folder.read(folder)


def test_links_and_folders_in_place_of_files_are_refused(folder, tmp_path):
    target = tmp_path / "same bytes"
    target.write_bytes((folder / "model.bin").read_bytes())
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(target)
    with pytest.raises(CheckpointError, match=r"model.bin: not a regular file"):
        export_folder.read(folder)
    (folder / "model.bin").unlink()
    (folder / "model.bin").mkdir()
    with pytest.raises(CheckpointError, match=r"model.bin: not a regular file"):
        export_folder.read(folder)
    os.rmdir(folder / "model.bin")
    os.mkfifo(folder / "model.bin")
    with pytest.raises(CheckpointError, match=r"model.bin: not a regular file"):
        export_folder.read(folder)


def test_a_folder_without_model_json_is_no_complete_export(folder):
    (folder / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no model.json, so it is not a complete export"):
        export_folder.read(folder)
    with pytest.raises(CheckpointError, match="no such export folder"):
        export_folder.read(folder / "model.bin")


IMAGE = Port("image", "float32", 3, "0 to 255")
FORGED = [
    ({"model_file": "../model.xml"}, "records no ../model.xml"),
    ({"model_file": "/etc/passwd"}, "records no /etc/passwd"),
    ({"stride": 0}, "stride 0"),
    ({"stride": "4"}, "stride: Input should be a valid integer"),
    ({"size": [30, 48]}, "size"),
    ({"size": [32]}, "size.1: Field required"),
    ({"size": [320, 480]}, "size"),
    ({"largest_side": 10**9}, "sides of 1 to 1000000000"),
    ({"smallest_side": 0}, "sides of 0 to"),
    ({"inputs": []}, "ports missing"),
    ({"inputs": [vars(IMAGE) | {"name": "secret"}]}, "ports secret"),
    ({"inputs": [vars(IMAGE), vars(IMAGE)]}, "ports image, image"),
    ({"inputs": [vars(IMAGE) | {"channels": 4}]}, "image of 4 channels"),
    ({"outputs": [{"name": "depth", "dtype": "float64", "channels": 1, "unit": "m"}]}, "channels of float64"),
    ({"dynamic_batch": 1}, "dynamic_batch: Input should be a valid boolean"),
    ({"format": 2}, "format 2 is not the format 1"),
    ({"unknown": 1}, "damaged"),
    ({"files": {}}, "records no model.xml"),
    ({"files": []}, "damaged"),
]


@pytest.mark.parametrize(("change", "message"), FORGED, ids=[str(change)[:40] for change, _ in FORGED])
def test_a_forged_spec_with_a_right_digest_is_refused(folder, change, message):
    tree = json.loads((folder / "model.json").read_bytes())
    del tree["digest"]
    (folder / "model.json").write_bytes(seal({**tree, **change}))
    with pytest.raises(CheckpointError, match=message):
        export_folder.read(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"[" * 100_000])
def test_other_bytes_are_refused(folder, data):
    (folder / "model.json").write_bytes(data)
    with pytest.raises(CheckpointError):
        export_folder.read(folder)


def test_nothing_unsound_is_written(folder):
    with pytest.raises(ValueError, match="stride 0"):
        spec_of("openvino", stride=0)
    with pytest.raises(CheckpointError, match=r"records no model.onnx"):
        export_folder.write(folder, spec_of("onnx"))
