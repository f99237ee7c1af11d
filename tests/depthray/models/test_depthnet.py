"""Seed system 000: its exact sizes and scales, its stacking, and how ids become planes."""

import pytest
import torch
from torch import nn

from depthray.errors import UsageError
from depthray.models.depthnet import ClassChannels, build


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def some(count=1, size=(64, 64)):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(count, 3, *size, generator=generator),
        "sparse": torch.rand(count, 1, *size, generator=generator) * 5,
        "semantics": torch.randint(0, 41, (count, 1, *size), generator=generator),
    }


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"stacking": "original", "norm": "none"}, 7_929_221),
        ({"stacking": "original"}, 7_935_045),
        ({"inputs": ("image",)}, 7_935_045 - 3 * 9 * 32),
        ({"semantics": "onehot"}, 7_935_045 + (3 + 2 + 41 - 6) * 9 * 32),
        ({"classes": 20}, 7_935_045 + (3 + 2 + 8 - 6) * 9 * 32 + 21 * 8),
    ],
)
def test_parameter_counts(options, parameters):
    assert count(build(**options)) == parameters


def test_layers_have_the_original_sizes():
    model = build(stacking="original", norm="none")
    assert [count(part) for part in model.down] == [1_728, 18_432, 221_184, 884_736, 1_179_648, 3_538_944]
    assert [count(part) for part in model.up] == [1_179_648, 589_824, 221_184, 55_296, 27_648]
    assert [count(head) for head in model.heads] == [4_609, 3_457, 1_729, 865, 289]


def test_feature_maps_at_256_are_the_original_ones():
    with torch.no_grad():
        features = build(inputs=("image",)).eval()._features(torch.rand(1, 5 - 2, 256, 256))
    assert [tuple(level.shape[1:]) for level in features] == [
        *((32, 128, 128), (64, 64, 64), (128, 32, 32)),
        *((256, 16, 16), (256, 8, 8), (512, 4, 4)),
    ]


def test_five_scales_finest_first():
    with torch.no_grad():
        prediction = build().eval()(some(size=(128, 192)))
    assert prediction["depth"].shape == (1, 1, 128, 192)
    assert [tuple(level.shape[2:]) for level in prediction["pyramid"]] == [(32, 48), (16, 24), (8, 12), (4, 6)]


@pytest.mark.parametrize("options", [{}, {"stacking": "original", "norm": "none", "head": "elu"}])
def test_a_graph_that_is_exported_has_the_same_depth_and_no_pyramid(options, monkeypatch):
    model = build(**options).eval()
    with torch.no_grad():
        expected = model(some())["depth"]
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        prediction = model(some())
    assert set(prediction) == {"depth"}
    torch.testing.assert_close(prediction["depth"], expected, rtol=1e-5, atol=1e-5)


def test_finest_prediction_is_made_at_half_the_size():
    """Upsampled twofold, a row of pixels inside is on straight lines between the predictions."""
    model = build(head="none").eval()
    with torch.no_grad():
        batch = some()
        half = model._logits(model._decode(model._features(model.stack(batch))))[-1]
        depth = model(batch)["depth"]
    assert half.shape == (1, 1, 32, 32)
    assert torch.allclose(depth[..., 0, 1:-1:2], 0.75 * half[..., 0, :-1] + 0.25 * half[..., 0, 1:], atol=1e-5)


def to_metres(model, logits):
    """What the network makes of logits without samples."""
    return model.metres(logits, {}, logits) if model.kind == "sigmoid" else model._metres(logits)


@pytest.mark.parametrize(
    ("head", "low", "high"), [("sigmoid", 0.0, 10.0), ("elu", 0.0, float("inf")), ("none", -float("inf"), float("inf"))]
)
def test_heads_bound_the_depth(head, low, high):
    model = build(head=head, inputs=("image",)).eval()
    logits = torch.tensor([-1e4, 0.0, 1e4])
    metres = to_metres(model, logits)
    assert metres[0] == (low if low > -1 else -1e4)
    assert metres[1] == {"sigmoid": 5.0, "elu": 1.0, "none": 0.0}[head]
    assert metres[2] == (high if high < 1e4 else 1e4 + (head == "elu"))


@pytest.mark.parametrize("head", ["sigmoid", "elu", "none"])
@pytest.mark.parametrize("max_depth", [1.0, 10.0, 80.0])
def test_every_head_starts_at_a_quarter_of_the_depth(head, max_depth):
    model = build(head=head, max_depth=max_depth, inputs=("image",))
    starts = [to_metres(model, part.bias).item() for part in model.heads]
    assert starts == pytest.approx([max_depth / 4] * 5, rel=1e-5)


def test_original_stacking_is_six_planes_and_reads_no_classes():
    model = build(stacking="original")
    batch = some()
    planes = model.stack(batch)
    assert model.inputs == ("image", "sparse")
    assert planes.shape == (1, 6, 64, 64)
    assert torch.equal(planes[:, 3:4], batch["sparse"] / 10)
    assert not planes[:, 4:].any()


def test_original_stacking_without_sparse_depth_has_zeros_there():
    model = build(stacking="original", inputs=("image",))
    assert model.inputs == ("image",)
    assert not model.stack(some())[:, 3:].any()


def test_original_stacking_needs_an_image():
    with pytest.raises(UsageError, match=r"model\.stacking=original: needs 'image' among data\.inputs"):
        build(stacking="original", inputs=("sparse",))


def test_ids_become_one_channel_each_and_unknown_ids_none():
    planes = ClassChannels("onehot", 3)(torch.tensor([[[[0, 2], [3, -1]]]]))
    assert planes[0, :, 0, 0].tolist() == [1, 0, 0]
    assert planes[0, :, 0, 1].tolist() == [0, 0, 1]
    assert not planes[0, :, 1].any()


def test_unknown_ids_share_one_description():
    planes = ClassChannels("embedding", 3)(torch.tensor([[[[0, 2], [3, -1]]]]))
    assert torch.equal(planes[0, :, 1, 0], planes[0, :, 1, 1])
    assert not torch.equal(planes[0, :, 0, 0], planes[0, :, 0, 1])
    assert not torch.equal(planes[0, :, 1, 0], planes[0, :, 0, 1])


def test_numbering_of_onehot_classes_is_no_order():
    """Two ids swapped in data and weights give the same answer: an id is a name, not an intensity."""
    model = build(semantics="onehot", classes=3, inputs=("semantics",)).eval()
    ids = some()["semantics"] % 3
    swapped = torch.tensor([2, 1, 0])[ids]
    with torch.no_grad():
        before = model({"semantics": ids})["depth"]
        first = model.down[0][0][0].weight
        first.copy_(first[:, [2, 1, 0]])
        assert torch.allclose(model({"semantics": swapped})["depth"], before, atol=1e-5)


@pytest.mark.parametrize("inputs", [("image",), ("image", "sparse"), ("semantics", "image"), ("instances", "sparse")])
def test_any_inputs_go(inputs):
    batch = some() | {"instances": some()["semantics"]}
    model = build(inputs=inputs).eval()
    assert model.inputs == inputs
    with torch.no_grad():
        assert model({key: batch[key] for key in inputs})["depth"].isfinite().all()


def test_norm_is_eight_groups_or_none():
    norms = [part for part in build().modules() if isinstance(part, nn.GroupNorm)]
    assert len(norms) == 10 + 5
    assert {part.num_groups for part in norms} == {8}
    assert not [part for part in build(norm="none").modules() if isinstance(part, nn.GroupNorm)]


def test_dropout_is_on_in_training_only():
    model = build(inputs=("image",))
    batch = {"image": some()["image"]}
    with torch.no_grad():
        assert not torch.equal(model.train()(batch)["depth"], model(batch)["depth"])
        assert torch.equal(model.eval()(batch)["depth"], model(batch)["depth"])
