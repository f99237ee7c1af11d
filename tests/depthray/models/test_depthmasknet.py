"""Seed system 004, mask and depth: its exact layers, its two wirings, where it starts."""

import pytest
import torch
from inputs import pair, summary_rows
from torch import nn

from depthray import models
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.models.depthmasknet import build
from depthray.models.layers.depth_head import Completion

WITHOUT_ROW = ("Sequential", "ModuleList", "InputStack", "DepthHead")  # they hold layers, or only rescale
BOTH = ["all", "code"]


def convolved(taken, given, side):
    return [
        ("Conv2d", (given, side, side), 9 * taken * given + given),
        ("BatchNorm2d", (given, side, side), 2 * given),
        ("ReLU", (given, side, side), 0),
    ]


def encoder(taken, given, side):
    """Rows of an encoder; the ReLU after its sum is no layer, so no row."""
    return [
        ("MaxPool2d", (taken, side, side), 0),
        *convolved(taken, given, side),
        *convolved(given, given, side),
        ("Conv2d", (given, side, side), taken * given),
        ("BatchNorm2d", (given, side, side), 2 * given),
        ("EncoderBlock", (given, side, side), 0),
    ]


def decoder(taken, given, side):
    """Rows of a decoder; enlarging and adding are no layers."""
    return [
        ("Conv2d", (given, side // 2, side // 2), taken * given + given),
        *convolved(given, given, side),
        *convolved(given, given, side),
        ("DecoderBlock", (given, side, side), 0),
    ]


STEM = [*convolved(3, 16, 224), *convolved(16, 16, 224)]
HEAD = [("Conv2d", (1, 224, 224), 17)]
UP = [*decoder(256, 128, 28), *decoder(128, 64, 56), *decoder(64, 32, 112), *decoder(32, 16, 224)]
ROWS = [
    *STEM,
    *STEM,
    *encoder(16, 16, 112),
    *encoder(16, 16, 112),
    *encoder(32, 64, 56),
    *encoder(64, 128, 28),
    *encoder(128, 256, 14),
    *UP,
    *HEAD,
    *encoder(256, 512, 7),
    *decoder(512, 256, 14),
    *UP,
    *HEAD,
    ("DepthMaskNet8", (1, 224, 224), 0),
]


@pytest.fixture(params=BOTH)
def model(request):
    torch.manual_seed(0)
    return build(wiring=request.param)


def test_layers_are_the_originals(model):
    found = summary_rows(model.eval(), pair(224, 224, 1), shown="depth", without=WITHOUT_ROW)
    assert found == ROWS
    assert len(found) == 147
    assert sum(own for *_, own in found) == sum(value.numel() for value in model.parameters()) == 7_083_874


@pytest.mark.parametrize(
    ("part", "parameters"),
    [
        ("background", [2_832]),
        ("image", [2_832]),
        ("background_encoder", [4_992]),
        ("image_encoder", [4_992]),
        ("encoders", [57_856, 230_400, 919_552, 3_674_112]),
        ("mask_decoders", [328_576, 82_368, 20_704, 5_232]),
        ("depth_decoders", [1_312_512, 328_576, 82_368, 20_704, 5_232]),
        ("mask_head", [17]),
        ("depth_head", [17]),
    ],
)
def test_each_part_has_its_parameters(part, parameters):
    found = getattr(build(), part)
    parts = found if isinstance(found, nn.ModuleList) else [found]
    assert [sum(value.numel() for value in each.parameters()) for each in parts] == parameters


def traced(model, batch):
    """What each decoder took and gave, by m1..m4 and d1..d5; the joined map; what the depth head took."""
    taken, given, joined, last = {}, {}, [], []

    def note(key, inputs, output):
        taken[key], given[key] = inputs, output

    for name in ("mask", "depth"):
        for number, each in enumerate(getattr(model, f"{name}_decoders"), start=1):
            each.register_forward_hook(lambda _, *seen, key=f"{name[0]}{number}": note(key, *seen))
    model.encoders[0].register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    model.depth_head.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    with torch.no_grad():
        model(batch)
    return taken, given, joined[0], last[0]


def test_depth_decoders_get_the_features_of_the_wiring(model):
    taken, given, joined, last = traced(model.train(), pair())
    gains = [taken[f"d{step + 1}"][0] - given[f"d{step}"] for step in range(1, 5)] + [last - given["d5"]]
    third, fourth = (joined, torch.zeros(())) if model.wiring == "code" else (given["m3"], given["m4"])
    expected = [torch.zeros(()), given["m1"], given["m2"], third, fourth]
    assert all(torch.allclose(gain, want, atol=1e-5) for gain, want in zip(gains, expected, strict=True))
    assert all(given[key].abs().max() > 0.1 for key in ("m1", "m2", "m3", "m4"))


def test_laterals_are_the_maps_of_the_way_down(model):
    taken, _, joined, _ = traced(model.train(), pair())
    assert all(torch.equal(taken[f"m{step}"][1], taken[f"d{step + 1}"][1]) for step in range(1, 5))
    assert torch.equal(taken["m3"][1], joined)
    assert torch.equal(taken["d1"][1], taken["m1"][0])
    with torch.no_grad():
        stem = model.image(model.image_stack(pair()))
    assert torch.equal(taken["m4"][1], stem)


def test_wirings_differ_in_depth_alone():
    with torch.no_grad():
        torch.manual_seed(0)
        full, code = (build(wiring=wiring).eval() for wiring in BOTH)
        code.load_state_dict(full.state_dict())
        one, other = full(pair()), code(pair())
    assert torch.equal(one["mask"], other["mask"])
    assert (one["depth"] - other["depth"]).abs().max() > 1e-3


@pytest.mark.parametrize(("wiring", "reached"), [("all", True), ("code", False)])
def test_depth_trains_the_finest_mask_decoder_in_one_wiring_only(wiring, reached):
    model = build(wiring=wiring)
    model(pair(64, 64))["depth"].mean().backward()
    assert (model.mask_decoders[3].narrow.weight.grad is not None) is reached
    assert model.mask_decoders[1].narrow.weight.grad.any()


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (70, 20)])
def test_any_size_gives_finite_maps_of_that_size(model, size):
    with torch.no_grad():
        prediction = models.run(model.eval(), pair(*size))
    assert set(prediction) == {"depth", "mask"}
    for key in ("depth", "mask"):
        values = prediction[key]
        assert values.shape == (2, 1, *size)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
    assert 0 < prediction["depth"].min() < prediction["depth"].max() < 10
    assert prediction["mask"].min() < 0  # logits, not probabilities


@pytest.mark.parametrize("training", [True, False])
def test_starts_at_sensible_answers(model, training):
    with torch.no_grad():
        prediction = model.train(training)(pair(64, 64))
    assert 1.0 < prediction["depth"].median() < 5.0
    assert 0.02 < prediction["mask"].sigmoid().median() < 0.1


def test_max_depth_scales_the_depth_alone():
    near, far = build().eval(), build(max_depth=80.0).eval()
    far.load_state_dict(near.state_dict())
    with torch.no_grad():
        one, other = near(pair()), far(pair())
    assert torch.allclose(other["depth"], 8 * one["depth"])
    assert torch.equal(other["mask"], one["mask"])


def test_further_inputs_widen_the_image_branch_only():
    inputs = ("sparse", "background", "image", "semantics")
    torch.manual_seed(0)
    legacy = Completion("legacy")  # whose last layer means the same with samples and without
    model, wide = build().eval(), build(inputs=inputs, completion=legacy).eval()
    assert wide.inputs == inputs
    assert wide.image[0].weight.shape == (16, 15, 3, 3)
    assert wide.background[0].weight.shape == (16, 3, 3, 3)
    assert not wide.image[0].weight[:, :2].any() and not wide.image[0].weight[:, 5:].any()
    first = torch.zeros(16, 15, 3, 3)
    first[:, 2:5] = model.image[0].weight.detach()
    wide.load_state_dict(model.state_dict() | {"image.0.weight": first})
    batch = pair() | {"sparse": torch.zeros(2, 1, 32, 32), "semantics": torch.ones(2, 1, 32, 32, dtype=torch.int64)}
    with torch.no_grad():
        assert torch.allclose(wide(batch)["depth"], model(batch)["depth"], atol=1e-5)


def test_unknown_wiring_is_refused():
    with pytest.raises(UsageError, match=r"model.wiring='legacy': input should be 'all' or 'code'"):
        models.check(Model(name="depthmasknet", wiring="legacy"), where="my.yaml")
