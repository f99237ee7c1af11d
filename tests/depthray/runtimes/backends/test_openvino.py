"""What a description of OpenVINO must not hold; the runtime sees none of it."""

import openvino
import pytest
import torch
from exports import change, spec_of, write_export

from depthray.errors import CheckpointError
from depthray.runtimes import export_folder
from depthray.runtimes.open import open_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An export, with a runtime that must not be reached."""
    path = write_export(tmp_path / "export", "openvino")
    monkeypatch.setattr(openvino, "Core", lambda: pytest.fail("the runtime saw it"))
    return path


def refused(folder, old, new, match):
    data = (folder / "model.xml").read_bytes()
    assert old in data
    change(folder, "model.xml", data.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=match):
        open_model(folder, device=CPU)


@pytest.mark.parametrize("version", [b"extension", b"custom", b"", b"opset1.so"])
def test_operators_of_other_sets(folder, version):
    old = b'type="Convolution" version="opset1"'
    refused(folder, old, old.replace(b"opset1", version), "operator 'Convolution' is of '.*', and only standard ones")


def test_operators_of_other_sets_inside_loops(folder):
    body = b'<layers><layer type="If"><then_body><layers><layer type="Evil" version="x"/></layers></then_body></layer>'
    refused(folder, b"<layers>", body, "operator")


@pytest.mark.parametrize(
    "place", [b'offset="0" size="9999999"', b'offset="9999999" size="4"', b'offset="-4" size="8"', b'size="8"', b""]
)
def test_weights_outside_of_their_file(folder, place):
    data = (folder / "model.xml").read_bytes()
    start = data.index(b'offset="0"')
    old = data[start : data.index(b" />", start)]
    refused(folder, old, place, "its weights .* are outside of the file of weights")


def test_weights_that_are_missing(folder):
    (folder / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model.bin is missing"):
        open_model(folder, device=CPU)
    export_folder.write(folder, spec_of("openvino"))
    with pytest.raises(CheckpointError, match=r"has no model.bin"):
        open_model(folder, device=CPU)


@pytest.mark.parametrize(
    "header",
    [
        b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b">]>',
        b'<?xml version="1.0" encoding="utf-7"?>',
        b'<?xml version="1.0"?><!DOCTYPE layer [<!ATTLIST layer version CDATA "opset1">]>',
        b"\0",
    ],
)
def test_entities_and_other_encodings(folder, header):
    refused(folder, b'<?xml version="1.0"?>', header, "not an OpenVINO model")


def test_other_encodings_of_the_whole(folder):
    text = (folder / "model.xml").read_text(encoding="utf-8")
    change(folder, "model.xml", text.encode("utf-16"))
    with pytest.raises(CheckpointError, match="not an OpenVINO model"):
        open_model(folder, device=CPU)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b'shape="?,3,?,?"', b'shape="?,4,?,?"', r"image is float32 \(any, 4, any, any\)"),
        (b'shape="?,3,?,?"', b'shape="?,?,?,?"', r"image is float32 \(any, any, any, any\)"),
        (b'shape="?,3,?,?"', b'shape="?,3,32,?"', r"image is float32 \(any, 3, 32, any\)"),
        (b'shape="?,3,?,?"', b'shape="..."', r"image is float32 \(any\)"),
        (b'element_type="i64"', b'element_type="f64"', "semantics is f64"),
        (b'names="image"', b'names="photo"', "its inputs are photo, semantics, not image, semantics"),
    ],
)
def test_inputs_of_another_shape_type_or_name(folder, old, new, match):
    refused(folder, old, new, match)
