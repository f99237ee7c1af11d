"""Runs that start from runs: every architecture, other inputs and ranges, and the origin in the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import write_checkpoint
from inputs import some
from safetensors.torch import load_file, save_file

from depthray import models
from depthray.__main__ import main
from depthray.checkpoints import load, manifest, select
from depthray.checkpoints.origin import Origin
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError, UsageError
from depthray.models.layers.inputs import fill_sparse
from depthray.storage import environment
from depthray.training import preflight
from depthray.training.state import begin
from depthray.weights.start import start

CPU = torch.device("cpu")
# Recipes of all architectures, as small as they come.
SMALL = {
    "depthnet": [],
    "unet-resnet34": ["model.encoder=tiny"],
    "fpn-resnet101": ["model.encoder=resnet18"],
    "bifpn-efficientnet-b0": [],
    "masknet": [],
    "depthmasknet": [],
    "dpt-vits": ["model.size=tiny", "data.size=56,70"],
}


def started(recipe: Recipe, seed: int = 1):
    """The network of a recipe whose seed differs from that of the checkpoint, and its report."""
    torch.manual_seed(seed)
    network = models.build_model(recipe.model, recipe.data.inputs)
    return network, start(network, recipe.model)


def test_each_architecture_is_tried():
    assert {preflight.load(name).model.name for name in SMALL} == set(models.names())


@pytest.mark.parametrize("name", SMALL)
def test_a_run_starts_from_a_checkpoint_of_its_architecture(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path / "run", *SMALL[name], name=name)
    weights = load_file(checkpoint / "model.safetensors")
    places = [tmp_path / "run", tmp_path / "run" / "checkpoints", checkpoint, checkpoint / "model.safetensors"]
    for place in (
        places if name == "masknet" else places[:1]
    ):  # of one architecture: where they are found is not its own
        network, report = started(preflight.load(name, [*SMALL[name], f"model.weights={place}"]))
        assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
        assert report.can_predict("metric") and not report.unused


def test_depth_of_another_kind_is_not_scored_before_training(tmp_path):
    relative = ["model.encoder=tiny", "loss={ssi: 1, ssi_space: depth}", "eval.protocol=affine-depth"]
    write_checkpoint(tmp_path / "run", *relative, name="demo")
    own = begin(preflight.load("demo", [*relative, f"model.weights={tmp_path}/run"]), CPU)
    metres = begin(preflight.load("demo", ["model.encoder=tiny", f"model.weights={tmp_path}/run"]), CPU)
    assert own.can_predict and not metres.can_predict


def test_a_run_on_a_store_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    checkpoint = write_checkpoint(tmp_path / "run")
    network, report = started(preflight.load("demo", ["model.encoder=tiny", f"model.weights=file://{tmp_path}/run"]))
    assert report.can_predict("metric") and list((tmp_path / "cache").rglob("model.safetensors"))
    assert torch.equal(network.head.weight, load_file(checkpoint / "model.safetensors")["head.weight"])


def test_a_file_of_a_network_alone_will_do(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((checkpoint / "model.safetensors").read_bytes())
    network, report = started(preflight.load("demo", ["model.encoder=tiny", f"model.weights={alone}"]))
    assert report.can_predict
    assert torch.equal(network.head.weight, load_file(alone)["head.weight"])


@pytest.mark.parametrize("name", ["unet-resnet34", "bifpn-efficientnet-b0", "depthmasknet", "dpt-vits", "depthnet"])
def test_further_inputs_are_added_to_a_checkpoint(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path / "run", *SMALL[name], name=name)
    inputs = preflight.load(name).data.inputs
    wider = ",".join(dict.fromkeys(["sparse", *inputs, "instances"]))
    words = [*SMALL[name], f"data.inputs={wider}", f"model.weights={checkpoint}"]
    network, report = started(preflight.load(name, words))
    weights = load_file(checkpoint / "model.safetensors")
    widened = [key for key, value in network.state_dict().items() if value.shape != weights[key].shape]
    assert report.can_predict("metric") and widened
    if "sparse" not in inputs:
        # Its last layer gave depth and now corrects samples: it starts at 0.
        assert any(
            "the last layer starts anew: its output is depth itself in the file" in note for note in report.notes
        )
        side = network.stride * (1 + 32 // network.stride)  # large enough for samples
        batch = some(network.inputs, 1, side, side)
        with torch.no_grad():
            assert torch.equal(models.run(network.eval(), batch)["depth"], fill_sparse(batch["sparse"]))
    for key in widened:
        # What was there is found again, in any order, and all that is new is 0.
        assert network.state_dict()[key].abs().sum() == pytest.approx(weights[key].abs().sum().item(), rel=1e-5)


def test_a_guided_fill_is_added_to_a_network_of_completion(tmp_path):
    words = ["data.inputs=image,sparse", "model.encoder=tiny"]
    write_checkpoint(tmp_path / "run", *words, name="demo")
    network, report = started(preflight.load("demo", [*words, "model.fill=guided", f"model.weights={tmp_path}/run"]))
    assert report.can_predict("metric") and network.metres.fill is not None


def test_samples_join_a_monocular_network_late(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", "model.encoder=tiny", name="demo")
    words = ["data.inputs=image,sparse", "model.encoder=tiny", "model.sparse_fusion=late"]
    network, report = started(preflight.load("demo", [*words, f"model.weights={checkpoint}"]))
    theirs = load_file(checkpoint / "model.safetensors")
    assert report.can_predict("metric") and torch.equal(network.encoder.conv1.weight, theirs["encoder.conv1.weight"])
    batch = some(network.inputs, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(models.run(network.eval(), batch)["depth"], fill_sparse(batch["sparse"]), rtol=1e-5)


def test_inputs_in_another_order_are_the_same_inputs(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", "data.inputs=image,mask,sparse")
    words = ["model.encoder=tiny", "data.inputs=sparse,image,mask", f"model.weights={checkpoint}"]
    first = started(preflight.load("demo", words))[0].encoder.conv1.weight
    theirs = load_file(checkpoint / "model.safetensors")["encoder.conv1.weight"]
    assert torch.equal(first, torch.cat([theirs[:, 4:], theirs[:, :3], theirs[:, 3:4]], dim=1))


def test_inputs_that_are_left_out_need_partial(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", "data.inputs=image,sparse")
    words = ["model.encoder=tiny", "data.inputs=image", f"model.weights={checkpoint}"]
    with pytest.raises(UsageError, match=r"has the input sparse, which data.inputs has not; .*match=partial loads"):
        started(preflight.load("demo", words))
    network, _ = started(preflight.load("demo", [*words, "model.weights_match=partial"]))
    theirs = load_file(checkpoint / "model.safetensors")["encoder.conv1.weight"]
    assert torch.equal(network.encoder.conv1.weight, theirs[:, :3])


def test_another_range_needs_partial(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run")
    words = ["model.encoder=tiny", "model.max_depth=80", f"model.weights={checkpoint}"]
    with pytest.raises(UsageError, match=r"was trained for model.max_depth=10, here it is 80"):
        started(preflight.load("demo", words))
    assert started(preflight.load("demo", [*words, "model.weights_match=partial"]))[1].can_predict


def test_of_another_architecture_the_encoder_is_loaded_where_partial(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", "model.encoder=resnet18", name="unet-resnet34")
    words = ["model.encoder=resnet18", f"model.weights={checkpoint}"]
    with pytest.raises(UsageError) as refused:
        started(preflight.load("fpn-resnet101", words))
    assert "is a depthray network, unet with encoder=resnet18" in str(refused.value)
    assert "it fits model.name=unet model.encoder=resnet18" in str(refused.value)
    network, report = started(preflight.load("fpn-resnet101", [*words, "model.weights_match=partial"]))
    weights = load_file(checkpoint / "model.safetensors")
    assert torch.equal(network.encoder.layer4[1].conv2.weight, weights["encoder.layer4.1.conv2.weight"])
    assert not [name for name in report.random if name.startswith("encoder.")]
    assert any(name.startswith("decoder.") for name in report.unused)


def test_of_a_network_without_a_common_part_nothing_is_loaded(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", name="depthnet")
    words = ["model.encoder=tiny", f"model.weights={checkpoint}", "model.weights_match=partial"]
    with pytest.raises(UsageError, match=r"does not fit unet with encoder=tiny: .*network, depthnet and"):
        started(preflight.load("demo", words))


def test_an_output_that_is_new_stays_random_where_partial(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run", name="depthmasknet")
    weights = {key: value for key, value in load_file(checkpoint / "model.safetensors").items() if "depth_" not in key}
    save_file(weights, tmp_path / "mask_only.safetensors")
    words = [f"model.weights={tmp_path}/mask_only.safetensors"]
    with pytest.raises(UsageError, match=r"lacks weight 'depth_decoders.*match=partial"):
        started(preflight.load("depthmasknet", words))
    _, report = started(preflight.load("depthmasknet", [*words, "model.weights_match=partial"]))
    assert {name.split(".")[0] for name in report.random} == {"depth_decoders", "depth_head"}


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a run folder"):
        started(preflight.load("demo", ["model.encoder=tiny", f"model.weights={tmp_path}/empty"]))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "run")
    data = bytearray((checkpoint / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        started(preflight.load("demo", ["model.encoder=tiny", f"model.weights={checkpoint}"]))


def save_origin(tmp_path: Path, origin: Origin | None) -> Path:
    """A checkpoint whose run started from somewhere."""
    from dataclasses import replace

    from depthray.checkpoints import save

    return save.write(tmp_path / "checkpoints", replace(load.load(write_checkpoint(tmp_path)), origin=origin))


ORIGIN = Origin("hf:a/b@main/c.pth", "DINOv2", "CC-BY-NC-4.0", False, "photographs", "0" * 64)


def test_the_origin_is_in_the_manifest_and_comes_back(tmp_path):
    checkpoint = save_origin(tmp_path, ORIGIN)
    assert load.load(checkpoint).origin == ORIGIN
    assert json.loads((checkpoint / manifest.NAME).read_bytes())["format"] == manifest.FORMAT_WITH_ORIGIN


def test_a_checkpoint_without_an_origin_is_written_as_before(tmp_path):
    tree = json.loads((write_checkpoint(tmp_path) / manifest.NAME).read_bytes())
    assert tree["format"] == manifest.FORMAT and "origin" not in tree


def test_a_licence_passes_from_run_to_run_and_to_resumed_ones(tmp_path):
    checkpoint = save_origin(tmp_path, ORIGIN)
    recipe = preflight.load("demo", ["model.encoder=tiny", f"model.weights={checkpoint}"])
    state = begin(recipe, CPU)
    assert state.origin is not None
    assert (state.origin.licence, state.origin.commercial) == ("CC-BY-NC-4.0", False)
    assert state.origin.source == f"{checkpoint} ({checkpoint.name})"
    assert "no commercial use" in state.notes[0]
    assert state.contents({}, fingerprint="f").origin == state.origin


def test_a_run_says_what_it_started_from_and_its_checkpoints_keep_it(tmp_path, capsys):
    words = ["data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=1", "eval.batch_size=4"]
    words += ["model.encoder=tiny", "--local", "--out"]
    checkpoint = save_origin(tmp_path, ORIGIN)
    assert main(["train", "demo", f"model.weights={checkpoint}", *words, str(tmp_path / "run")]) == 0
    assert "weights of the network are those of a depthray network, unet with encoder=tiny" in capsys.readouterr().out
    trained = select.resolve(tmp_path / "run")
    origin = load.load(trained).origin
    assert origin is not None
    assert (origin.licence, origin.family) == ("CC-BY-NC-4.0", "depthray, from DINOv2")
    assert main(["train", "train.epochs=2", "--resume", *words[-2:], str(tmp_path / "run")]) == 0
    assert "weights of the network are those" not in capsys.readouterr().out
    assert load.load(select.resolve(tmp_path / "run")).origin == origin
