"""What an ONNX file must not hold; the runtime sees none of it."""

import struct

import onnx
import onnxruntime
import pytest
import torch
from exports import change, write_export
from onnx import TensorProto, helper

from depthray.errors import CheckpointError
from depthray.runtimes.open import open_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An export, with a runtime that must not be reached."""
    path = write_export(tmp_path / "export")
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **kwargs: pytest.fail("the runtime saw it"))
    return path


def refused(folder, edit, match):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    edit(model)
    change(folder, "model.onnx", model.SerializeToString())
    with pytest.raises(CheckpointError, match=match):
        open_model(folder, device=CPU)


@pytest.mark.parametrize("domain", ["com.microsoft", "evil", "ai.onnx.ml", "pkg.torch"])
def test_operators_of_other_domains(folder, domain):
    def edit(model):
        model.graph.node[0].domain = domain

    refused(folder, edit, f"it has operators of '{domain}', and only standard ones are run")


def test_other_domains_that_are_only_imported(folder):
    refused(folder, lambda model: model.opset_import.add(domain="evil", version=1), "operators of 'evil'")


def test_operators_that_onnx_does_not_have(folder):
    def edit(model):
        model.graph.node[0].op_type = "Execute"

    refused(folder, edit, "ONNX has no operator 'Execute'")


def branch(node):
    """A node inside the branch of a condition."""
    graph = helper.make_graph([node], "inner", [], [])
    return helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)


def test_custom_operators_inside_branches(folder):
    hidden = branch(branch(helper.make_node("Execute", [], ["x"], domain="evil")))
    refused(folder, lambda model: model.graph.node.append(hidden), "operators of 'evil'")


def test_functions_and_sparse_weights(folder):
    function = helper.make_function("evil", "F", ["x"], ["y"], [], [])
    refused(folder, lambda model: model.functions.append(function), "it has functions")
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [4],
    )
    refused(folder, lambda model: model.graph.sparse_initializer.append(sparse), "sparse weights")


def outside(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd", "recipe.yaml", ""])
def test_weights_in_other_files(folder, location):
    refused(folder, lambda model: outside(model.graph.initializer[0], location), "are in another file")


def test_weights_in_other_files_of_attributes_and_branches(folder):
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    outside(tensor, "/etc/passwd")
    constant = helper.make_node("Constant", [], ["x"], value=tensor)
    refused(folder, lambda model: model.graph.node.append(constant), "weights 't' are in another file")

    inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
    condition = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    refused(folder, lambda model: model.graph.node.append(condition), "weights 't' are in another file")


@pytest.mark.parametrize(
    ("dimension", "value", "match"),
    [(1, 4, r"image is float32 \(any, 4, any, any\)"), (0, 1, r"\(1, 3, any, any\)"), (2, 32, r"\(any, 3, 32, any\)")],
)
def test_inputs_of_another_shape(folder, dimension, value, match):
    def edit(model):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_value = value

    refused(folder, edit, match)


def test_inputs_of_another_type_or_rank(folder):
    def double(model):
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    def flat(model):
        del model.graph.input[0].type.tensor_type.shape.dim[3]

    refused(folder, flat, r"image is float32 \(any, 3, any\)")
    refused(folder, double, "image is type 11")


def test_it_is_read_in_the_format_that_was_checked(tmp_path):
    """ONNX Runtime would read bytes that begin like this as its own format, which nothing here has checked."""
    folder = write_export(tmp_path / "export")
    # A field of protobuf that no model has, whose bytes are the mark of that format.
    prefix = bytes([0b11111010, 0b00111111, 8]) + b"\0" + b"ORTM" + struct.pack("<3x")
    data = prefix + (folder / "model.onnx").read_bytes()
    assert data[4:8] == b"ORTM"
    onnx.load_model_from_string(data)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="ORT model verification"):
        onnxruntime.InferenceSession(data)
    change(folder, "model.onnx", data)
    assert open_model(folder, device=CPU).network
