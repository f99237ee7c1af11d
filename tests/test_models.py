"""What every architecture promises; a new one in depthray/models is covered unasked."""

import copy
import inspect
import math
from importlib import import_module
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn

from depthray import models
from depthray.errors import DataError, UsageError
from depthray.models import _inputs
from depthray.models._encoders import widen
from depthray.sections import Model

EXTRA = [("unet", {"encoder": "tiny"}), ("unet", {"encoder": "resnet18", "decoder": "linear"})]
CASES = [(name, {}) for name in models.names()] + EXTRA
every_model = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
ALL_INPUTS = ("sparse", "image", "semantics", "instances", "background", "mask")


def make(name, options, inputs=None):
    torch.manual_seed(0)
    build = import_module(f"depthray.models.{name}").build
    natural = inspect.signature(build).parameters["inputs"].default
    return models.build_model(Model(name=name, **options), inputs or natural)


def some(inputs, count=2, height=64, width=64):
    generator = torch.Generator().manual_seed(1)
    values = {key: torch.rand(count, 3, height, width, generator=generator) for key in ("image", "background")}
    values |= {"sparse": torch.rand(count, 1, height, width, generator=generator) * 5}
    values |= {"mask": (torch.rand(count, 1, height, width, generator=generator) > 0.5).float()}
    ids = 211 * torch.randint(0, 4, (count, 1, height // 8 + 1, width // 8 + 1), generator=generator)
    ids = ids.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width]
    return {key: value for key, value in (values | {"semantics": ids, "instances": ids}).items() if key in inputs}


@every_model
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (70, 65)])
def test_depth_has_the_input_size_and_is_metric(name, options, size):
    model = make(name, options).eval()
    with torch.no_grad():
        depth = models.run(model, some(model.inputs, 2, *size))["depth"]
    assert depth.shape == (2, 1, *size)
    assert depth.dtype == torch.float32
    assert 0 <= depth.min() < depth.max() <= 10.0


@every_model
def test_gradient_reaches_every_parameter(name, options):
    model = make(name, options).train()
    prediction = models.run(model, some(model.inputs))
    maps = [
        prediction["depth"],
        *prediction.get("pyramid", []),
        *([prediction["mask"]] if "mask" in prediction else []),
    ]
    sum((level * torch.rand(level.shape)).mean() for level in maps).backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []
    assert all(value.grad.isfinite().all() for value in model.parameters())


@every_model
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_any_image_gives_finite_depth(name, options, kind):
    model = make(name, options).eval()
    batch = some(model.inputs)
    batch["image"] = {"black": torch.zeros, "white": torch.ones, "noise": torch.rand}[kind](2, 3, 64, 64)
    with torch.no_grad():
        assert models.run(model, batch)["depth"].isfinite().all()


@every_model
def test_state_survives_a_round_trip(name, options):
    first, second = make(name, options), make(name, options)
    with torch.no_grad():
        models.run(first.train(), some(first.inputs))
        [parameter.mul_(1.1) for parameter in first.parameters()]
    second.load_state_dict(first.state_dict())
    batch = some(first.inputs)
    with torch.no_grad():
        assert torch.equal(models.run(first.eval(), batch)["depth"], models.run(second.eval(), batch)["depth"])


@every_model
def test_images_of_a_batch_do_not_touch_each_other(name, options):
    model = make(name, options).eval()
    batch = some(model.inputs, 3)
    with torch.no_grad():
        together = models.run(model, batch)["depth"]
        alone = models.run(model, {key: value[1:2] for key, value in batch.items()})["depth"]
    assert (together[1:2] - alone).abs().max() < 1e-5


@every_model
def test_the_batch_is_left_as_it_was(name, options):
    model = make(name, options).train()
    batch = some(model.inputs)
    before = {key: value.clone() for key, value in batch.items()}
    models.run(model, batch)
    assert all(torch.equal(batch[key], before[key]) for key in before)


@every_model
def test_one_batch_can_be_learned(name, options):
    model = make(name, options).train()
    batch = some(model.inputs)
    truth = 1 + 4 * torch.linspace(0, 1, 64).expand(2, 1, 64, 64)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append((models.run(model, batch)["depth"] - truth).abs().mean())
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


@every_model
def test_untrained_depth_is_sensible(name, options):
    model = make(name, options).train()
    with torch.no_grad():
        median = models.run(model, some(model.inputs))["depth"].median()
    assert 1.0 < median < 5.0


@every_model
def test_depth_is_float32_under_autocast(name, options):
    model = make(name, options).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        depth = models.run(model, some(model.inputs))["depth"]
    assert depth.dtype == torch.float32
    assert depth.unique().numel() > 1000  # bfloat16 knows 64 values between 2 and 4


@every_model
def test_a_copy_predicts_the_same_and_goes_to_other_processes(name, options):
    model = make(name, options).eval()
    batch = some(model.inputs)
    ForkingPickler.dumps(model)
    with torch.no_grad():
        assert torch.equal(models.run(copy.deepcopy(model), batch)["depth"], models.run(model, batch)["depth"])


@pytest.mark.parametrize(("name", "inputs"), [*((name, None) for name in models.names()), ("unet", ALL_INPUTS)])
def test_every_input_is_used(name, inputs):
    model = make(name, {}, inputs).eval()
    with torch.no_grad():
        [parameter.add_(torch.randn_like(parameter), alpha=0.01) for parameter in model.parameters()]
        batch, other = some(model.inputs), some(model.inputs, 3)
        depth = models.run(model, batch)["depth"]
        for key in model.inputs:
            assert not torch.equal(models.run(model, batch | {key: other[key][1:]})["depth"], depth), key


@pytest.mark.parametrize("encoder", ["resnet18", "tiny"])
def test_widening_keeps_what_the_image_gave(encoder):
    narrow, wide = (make("unet", {"encoder": encoder}, inputs).eval() for inputs in (("image",), ALL_INPUTS))
    first = widen(narrow.encoder.conv1, ALL_INPUTS).weight
    wide.load_state_dict(narrow.state_dict() | {"encoder.conv1.weight": first})
    batch = some(ALL_INPUTS)
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


def test_planes_of_each_input():
    planes = _inputs.Planes(("sparse", "semantics", "instances"), max_depth=10.0)
    ids = torch.tensor([[[[5, 5], [5, 6]]]])
    out = planes({"sparse": torch.tensor([[[[0.0, 2.5], [5.0, 10.0]]]]), "semantics": ids, "instances": ids})
    assert out.shape == (1, 13, 2, 2)
    assert out[0, :2].tolist() == [[[0, 0.25], [0.5, 1]], [[0, 1], [1, 1]]]
    assert out[0, 2:12, 0, 0].tolist() == [1, -1, 1, -1, -1, -1, -1, -1, -1, -1]
    assert out[0, 12].tolist() == [[0, 1], [1, 0]]


def test_image_is_normalised_as_imagenet_was():
    white = _inputs.Planes(("image",), max_depth=10.0)({"image": torch.ones(1, 3, 1, 1)})
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
        ({"pretrained": 3}, "model.pretrained=3: input should be a valid boolean"),
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
