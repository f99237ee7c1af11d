"""How a recipe's model section becomes a network, what `run` does to a batch, and how inputs become planes."""

import inspect
import math
from copy import deepcopy
from importlib import import_module

import pytest
import torch
from inputs import some
from torch import nn

from depthray import models
from depthray.config.sections import Model
from depthray.errors import DataError, UsageError
from depthray.models.layers import inputs as _inputs
from depthray.models.layers.encoder import widen

ALL_INPUTS = ("sparse", "image", "semantics", "instances", "background", "mask", "intrinsics")


def make(name, options, inputs=("image",)):
    torch.manual_seed(0)
    return models.build_model(Model(name=name, **options), inputs)


@pytest.mark.parametrize("encoder", ["resnet18", "tiny"])
def test_widening_keeps_what_the_image_gave(encoder):
    options = {"encoder": encoder, "start": "legacy"}  # whose last layer means the same with samples and without
    narrow, wide = (make("unet", options, inputs).eval() for inputs in (("image",), ALL_INPUTS))
    first = widen(deepcopy(narrow.encoder.conv1), ALL_INPUTS).weight
    wide.load_state_dict(narrow.state_dict() | {"encoder.conv1.weight": first})
    batch = some(ALL_INPUTS) | {"sparse": torch.zeros(2, 1, 64, 64)}  # samples would be what the answer starts from
    with torch.no_grad():
        assert torch.allclose(models.run(wide, batch)["depth"], models.run(narrow, batch)["depth"], atol=1e-5)


class Echo(nn.Module):
    """Gives back what it was given, and checks that it was padded."""

    inputs = ("sparse", "instances")
    stride = 32

    def forward(self, batch):
        assert all(batch[key].shape[-2:] == (96, 64) for key in self.inputs)
        assert batch["sparse"][0, 0, -1, -1] == batch["sparse"][0, 0, 69, 40]
        return {"depth": batch["sparse"], "mask": batch["instances"], "pyramid": [batch["sparse"][..., ::4, ::4]]}


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_run_pads_to_the_stride_and_cuts_back(wrap):
    batch = some(Echo.inputs, 1, 70, 41)
    prediction = models.run(wrap(Echo()), batch)
    assert torch.equal(prediction["depth"], batch["sparse"])
    assert torch.equal(prediction["mask"], batch["instances"])
    assert prediction["pyramid"][0].shape[-2:] == (math.ceil(70 / 4), math.ceil(41 / 4))


class Coarse(nn.Module):
    """Its depth is a quarter of the padded size."""

    inputs = ("sparse",)
    stride = 32
    reduction = 4

    def forward(self, batch):
        return {"depth": batch["sparse"][..., ::4, ::4]}


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (70, 41), (1, 1)])
def test_run_cuts_coarse_maps_by_share(size):
    batch = some(Coarse.inputs, 1, *size)
    assert torch.equal(models.run(Coarse(), batch)["depth"], batch["sparse"][..., ::4, ::4])


def test_planes_of_each_input():
    planes = _inputs.InputStack(("sparse", "semantics", "instances"), max_depth=10.0)
    ids = torch.tensor([[[[5, 5], [5, 6]]]])
    out = planes({"sparse": torch.tensor([[[[0.0, 2.5], [5.0, 10.0]]]]), "semantics": ids, "instances": ids})
    assert out.shape == (1, 13, 2, 2)
    mean = (0.25 + 0.5 + 1) / 3  # where there is no sample
    assert out[0, 0].flatten().tolist() == pytest.approx([mean, 0.25, 0.5, 1])
    assert out[0, 1].tolist() == [[0, 1], [1, 1]]
    assert out[0, 2:12, 0, 0].tolist() == [1, -1, 1, -1, -1, -1, -1, -1, -1, -1]
    assert out[0, 12].tolist() == [[0, 1], [1, 0]]


def test_samples_are_kept_and_spread_over_the_map():
    slope = (2 + torch.arange(40) / 20).expand(1, 1, 33, 40).clone()
    sparse = torch.zeros_like(slope)
    places = torch.randperm(33 * 40, generator=torch.Generator().manual_seed(0))[:80]
    sparse.view(-1)[places] = slope.view(-1)[places]
    whole = _inputs.fill_sparse(torch.cat([sparse, torch.zeros_like(sparse)]))
    assert torch.equal(whole[0].view(-1)[places], slope.view(-1)[places])
    assert (whole[:1] - slope).abs().mean() < 0.1
    assert whole[1].abs().max() == 0


@pytest.mark.parametrize("name", sorted(set(models.names()) - {"masknet"}))
def test_an_untrained_network_starts_from_the_samples(name):
    torch.manual_seed(0)
    natural = inspect.signature(import_module(f"depthray.models.{name}").build).parameters["inputs"].default
    inputs = tuple(dict.fromkeys((*natural, "sparse")))
    model = make(name, {"size": "tiny"} if name == "dpt" else {}, inputs).train()
    batch = some(inputs) | {"sparse": torch.full((2, 1, 64, 64), 4.0)}
    with torch.no_grad():
        guided = models.run(model, batch)["depth"].median()
        alone = models.run(model, batch | {"sparse": torch.zeros(2, 1, 64, 64)})["depth"].median()
    assert guided > alone + 0.8


def test_image_is_normalised_as_imagenet_was():
    white = _inputs.InputStack(("image",), max_depth=10.0)({"image": torch.ones(1, 3, 1, 1)})
    assert white.flatten().tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "unett"}, "model.name: no architecture 'unett' (did you mean 'unet'?)"),
        ({"encodr": "tiny"}, "unknown key 'model.encodr' (did you mean 'encoder'?)"),
        ({"inputs": ["image"]}, "unknown key 'model.inputs'"),
        ({"encoder": "resnet43"}, "model.encoder='resnet43': input should be"),
        ({"encoder": "resnet43"}, "(did you mean 'resnet34'?)"),
        ({"max_depth": "far"}, "model.max_depth='far': input should be a valid number"),
        ({"max_depth": -1.0}, "model.max_depth=-1.0: input should be greater than 0"),
    ],
)
def test_wrong_sections_are_refused(section, message):
    with pytest.raises(UsageError) as refused:
        models.check(Model(**section), where="my.yaml")
    assert message in str(refused.value)
    assert str(refused.value).startswith("my.yaml: ")


@pytest.mark.parametrize("options", [{}, {"encoder": "tiny", "max_depth": 80}, {"pretrained": "w.pth"}])
def test_right_sections_pass(options):
    models.check(Model(**options), where="my.yaml")


def test_data_without_an_input_is_refused():
    model = make("unet", {"encoder": "tiny"}, inputs=("image", "sparse"))
    with pytest.raises(DataError, match=r"needs 'sparse' \(data.inputs\)"):
        models.run(model, some(("image",)))


def test_unknown_input_is_refused():
    with pytest.raises(UsageError, match=r"data.inputs: no model takes 'sparce' \(did you mean 'sparse'\?\)"):
        make("unet", {"encoder": "tiny"}, inputs=("image", "sparce"))


def test_names_lists_the_folder_without_private_files():
    assert "unet" in models.names()
    assert not [name for name in models.names() if name.startswith("_")]
