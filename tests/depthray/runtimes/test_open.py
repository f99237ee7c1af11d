"""Each runtime computes what PyTorch does, and gets no file that was not checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import FILES, TinyGraph, batch_of, change, example, spec_of, write_export

from depthray import models
from depthray.errors import CheckpointError, DataError, UsageError
from depthray.runtimes import export_folder
from depthray.runtimes import open as runtimes
from depthray.runtimes.export_folder import input_port, output_port
from depthray.runtimes.open import open_model

CPU = torch.device("cpu")
SAFE = [target for target in FILES if target != "aoti"]


def network_of(folder) -> Any:
    return open_model(folder, device=CPU).network


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Target -> the folder of its export, made when it is asked for."""
    made = {}

    def folder(target):
        if target not in made:
            made[target] = write_export(tmp_path_factory.mktemp("exports") / target, target)
        return made[target]

    return folder


@pytest.mark.parametrize("target", SAFE)
@pytest.mark.parametrize("size", [(1, 32, 48), (4, 32, 48), (2, 64, 40)])
def test_a_runtime_computes_what_pytorch_does(exports, target, size):
    opened = open_model(exports(target), device=CPU)
    tensors = example(*size)
    with torch.no_grad():
        depth, mask = TinyGraph().eval()(*tensors)
    prediction = opened.network(batch_of(*tensors))
    torch.testing.assert_close(prediction["depth"], depth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prediction["mask"].sigmoid(), mask, rtol=1e-5, atol=1e-6)
    assert prediction["depth"].shape == (size[0], 1, *size[1:])


@pytest.mark.parametrize("target", SAFE)
def test_frames_of_any_size_are_padded_as_for_other_networks(exports, target):
    network = network_of(exports(target))
    image, semantics = example(2, 32, 48)
    odd = batch_of(image[..., :29, :45], semantics[..., :29, :45])
    assert models.run(network, odd)["depth"].shape == (2, 1, 29, 45)


def test_each_target_has_one_runtime(exports):
    opened = {target: open_model(exports(target), device=CPU).runtime for target in SAFE}
    assert opened == {
        "onnx": "onnx",
        "tensorrt": "onnx",
        "openvino": "openvino",
        "openvino-int8": "openvino",
        "torch-export": "torch_export",
    }
    assert runtimes.names() == ["aoti", "onnx", "openvino", "torch_export"]


def test_what_it_was_trained_by_comes_with_it(exports):
    opened = open_model(exports("onnx"), device=CPU)
    assert (opened.epoch, opened.step, opened.fingerprint) == (3, 30, "f")
    assert opened.metrics == {"abs_rel": 0.1}
    assert opened.recipe.data.inputs == ("image", "semantics") == opened.network.inputs
    assert opened.recipe == runtimes.read_recipe(exports("onnx"))
    assert len(opened.sha256) == 64


def test_class_ids_beyond_those_of_the_network_are_refused(exports):
    network = network_of(exports("onnx"))
    image, semantics = example()
    with pytest.raises(DataError, match=r"class id 500\d is out of range"):
        models.check_ids(network, {"image": image, "semantics": semantics + 5000})


def test_a_graph_of_one_frame_is_called_once_a_frame(tmp_path):
    folder = write_export(tmp_path / "one", "torch-export")
    opened = network_of(folder)
    calls = []
    inner = opened._run

    def run(tensors):
        calls.append(len(tensors[0]))
        return inner(tensors)

    opened._run = run
    batch = batch_of(*example(3))
    together = opened(batch)["depth"]
    object.__setattr__(opened.spec, "dynamic_batch", False)
    torch.testing.assert_close(opened(batch)["depth"], together)
    assert calls == [3, 1, 1, 1]


def test_sizes_that_were_not_exported_are_refused(tmp_path):
    network = network_of(write_export(tmp_path / "small", largest_side=48, smallest_side=32))
    assert network(batch_of(*example()))
    with pytest.raises(DataError, match=r"sides of 32 to 48 pixels, and a frame has 64x32"):
        network(batch_of(*example(1, 32, 64)))
    with pytest.raises(DataError, match=r"sides of 32 to 48 pixels"):
        network(batch_of(*example(1, 28, 48)))
    object.__setattr__(network.spec, "dynamic_size", False)
    with pytest.raises(DataError, match=r"takes frames of 48x32 alone, not 32x32; set data.fit=exact"):
        network(batch_of(*example(1, 32, 32)))


def test_probabilities_of_0_and_1_have_finite_logits(tmp_path):
    network = network_of(write_export(tmp_path / "sure"))
    mask = torch.tensor([0.0, 1e-30, 0.5, 1 - 2**-24, 1.0]).reshape(1, 1, 1, 5).expand(2, 1, 32, 5)
    network._run = lambda tensors: [torch.ones(2, 1, 32, 48), mask]
    logits = network(batch_of(*example()))["mask"]
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.sigmoid(), mask, rtol=0, atol=2e-7)
    assert (logits[0, 0, 0].diff() >= 0).all()


@pytest.mark.parametrize(
    "maps",
    [
        [torch.ones(2, 1, 32, 48)],
        [torch.ones(2, 1, 32, 48), torch.ones(2, 32, 48)],
        [torch.ones(2, 1, 64, 48), torch.ones(2, 1, 32, 48)],
        [torch.ones(1, 1, 32, 48), torch.ones(2, 1, 32, 48)],
        [torch.ones(2, 1, 32, 48).double(), torch.ones(2, 1, 32, 48)],
    ],
)
def test_maps_of_another_shape_than_was_said_are_refused(tmp_path, maps):
    network = network_of(write_export(tmp_path / "wrong"))
    network._run = lambda tensors: maps
    with pytest.raises(CheckpointError, match=r"model.onnx: its .*; export the checkpoint again"):
        network(batch_of(*example()))


def test_a_runtime_that_fails_is_one_line(tmp_path):
    network = network_of(write_export(tmp_path / "failing"))

    def fail(tensors):
        raise RuntimeError("out of\nmemory")

    network._run = fail
    with pytest.raises(CheckpointError, match=r"model.onnx: its runtime fails: out of memory;"):
        network(batch_of(*example()))


@pytest.mark.parametrize("target", SAFE)
@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"nonsense", b"PK\5\6" + b"\0" * 18])
def test_files_that_are_no_models_are_refused(tmp_path, target, data):
    folder = write_export(tmp_path / "export", target)
    change(folder, FILES[target][0], data)
    with pytest.raises(CheckpointError, match=r"model\.\w+: .*; export the checkpoint again"):
        open_model(folder, device=CPU)


@pytest.mark.parametrize("target", SAFE)
@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("image",)},
        {"outputs": ("depth",)},
        {"dynamic_size": False},
        {"dynamic_batch": False},
    ],
    ids=str,
)
def test_a_model_of_other_ports_than_was_said_is_refused(tmp_path, target, changes):
    changes = dict(changes)
    for key, port in (("inputs", input_port), ("outputs", output_port)):
        if key in changes:
            changes[key] = tuple(map(port, changes[key]))
    folder = write_export(tmp_path / "export", target, **changes)
    with pytest.raises(CheckpointError, match=r"model\.\w+: .*(inputs|outputs|which|not as)"):
        open_model(folder, device=CPU)


def test_a_recipe_of_another_model_is_refused(tmp_path):
    folder = write_export(tmp_path / "export", depth_kind="affine-disparity")
    with pytest.raises(CheckpointError, match=r"recipe.yaml is not the recipe of this model"):
        open_model(folder, device=CPU)


def test_an_unknown_target_is_refused(tmp_path):
    folder = write_export(tmp_path / "export", "onnx")
    export_folder.write(folder, replace(spec_of("onnx"), target="coreml"))
    with pytest.raises(CheckpointError, match=r"target 'coreml' is none of aoti, onnx"):
        open_model(folder, device=CPU)


def test_a_runtime_that_is_not_installed_is_named_with_its_remedy(exports, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs onnx, which is not installed: pip install 'depthray\[export\]'"):
        open_model(exports("onnx"), device=CPU)


def test_native_code_is_opened_where_it_is_trusted_alone(tmp_path, monkeypatch):
    folder = write_export(tmp_path / "native", "aoti")
    loaded = []

    def load(path):  # compiling takes minutes where the machine is busy
        loaded.append(Path(path).read_bytes())
        return lambda *tensors: TinyGraph().eval()(*tensors)

    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    with pytest.raises(UsageError, match="native code, which could do anything here; add --trust"):
        open_model(folder, device=CPU)
    assert loaded == []
    network = open_model(folder, device=CPU, trust=True).network
    assert loaded == [(folder / "model.pt2").read_bytes()]
    assert network(batch_of(*example(3, 64, 40)))["depth"].shape == (3, 1, 64, 40)
    change(folder, "model.pt2", b"other code")
    (folder / "model.pt2").write_bytes(b"evil code!")
    with pytest.raises(CheckpointError, match="damaged"):
        open_model(folder, device=CPU, trust=True)
