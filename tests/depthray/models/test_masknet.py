"""Seed system 004, mask only: its exact layers, what it sees, where it starts."""

import pytest
import torch
from inputs import pair, summary_rows
from torch import nn

from depthray import models
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.models.masknet import build

WITHOUT_ROW = ("Sequential", "InputStack")  # they hold layers, or only prepare the input
ROWS = [
    ("Conv2d", 32, 896),
    ("BatchNorm2d", 32, 64),
    ("ReLU", 32, 0),
    ("Conv2d", 32, 896),
    ("BatchNorm2d", 32, 64),
    ("ReLU", 32, 0),
    ("Conv2d", 64, 36_928),
    ("BatchNorm2d", 64, 128),
    ("ReLU", 64, 0),
    ("Conv2d", 64, 36_928),
    ("BatchNorm2d", 64, 128),
    ("ReLU", 64, 0),
    ("Conv2d", 1, 65),
    ("MaskNet3", 1, 0),
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build().eval()


def test_layers_are_the_originals(model):
    found = summary_rows(model, pair(224, 224, 1), shown="mask", without=WITHOUT_ROW)
    assert found == [(kind, (channels, 224, 224), own) for kind, channels, own in ROWS]
    assert len(found) == 14
    assert sum(own for *_, own in found) == sum(value.numel() for value in model.parameters()) == 76_097


def test_background_comes_first(model):
    order = []
    for name in ("background", "image"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: order.append(name))
    seen = []
    model.compare.register_forward_pre_hook(lambda _, taken: seen.append(taken[0]))
    batch = pair()
    with torch.no_grad():
        model(batch)
        first = model.background(model.background_stack(batch))
    assert order[:2] == ["background", "image"]
    assert torch.equal(seen[0][:, :32], first)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 20)])
def test_any_size_gives_logits_of_that_size_and_nothing_else(model, size):
    with torch.no_grad():
        prediction = models.run(model, pair(*size))
    assert list(prediction) == ["mask"]
    assert prediction["mask"].shape == (2, 1, *size)
    assert prediction["mask"].dtype == torch.float32
    assert prediction["mask"].isfinite().all()
    assert prediction["mask"].min() < 0  # logits, not probabilities


def test_an_answer_sees_seven_pixels_across(model):
    batch = pair(15, 15, 1)
    batch["image"].requires_grad_()
    model(batch)["mask"][0, 0, 7, 7].backward()
    rows_seen, columns_seen = (batch["image"].grad[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    assert rows_seen.tolist() == columns_seen.tolist() == list(range(4, 11))


def test_branches_have_weights_of_their_own(model):
    with torch.no_grad():
        batch = pair()
        before = model(batch)["mask"]
        swapped = model({"image": batch["background"], "background": batch["image"]})["mask"]
    assert not torch.allclose(before, swapped)


def test_starts_at_the_share_of_foreground_there_is(model):
    with torch.no_grad():
        share = model.train()(pair())["mask"].sigmoid().mean()
    assert 0.02 < share < 0.1


def test_learns_where_the_two_differ(model):
    generator = torch.Generator().manual_seed(2)
    batch = {"background": torch.rand(4, 3, 16, 16, generator=generator)}
    truth = torch.zeros(4, 1, 16, 16)
    truth[..., 3:9, 5:12] = 1
    batch["image"] = torch.where(truth.bool(), torch.rand(4, 3, 16, 16, generator=generator), batch["background"])
    optimiser = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(20):
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch)["mask"], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = ((model(batch)["mask"] > 0) == truth.bool()).float().mean()
    assert right > 0.95  # all background would be right on 84 %


def test_further_inputs_widen_the_image_branch_only(model):
    wide = build(inputs=("sparse", "background", "image")).eval()
    assert wide.inputs == ("sparse", "background", "image")
    assert wide.image[0].weight.shape == (32, 5, 3, 3)
    assert wide.background[0].weight.shape == (32, 3, 3, 3)
    state = model.state_dict()
    state["image.0.weight"] = torch.cat([torch.zeros(32, 2, 3, 3), state["image.0.weight"]], dim=1)
    wide.load_state_dict(state)
    batch = pair() | {"sparse": torch.full((2, 1, 32, 32), 3.0)}
    with torch.no_grad():
        assert torch.allclose(wide(batch)["mask"], model(batch)["mask"], atol=1e-5)
    assert not build(inputs=("sparse", "background", "image")).image[0].weight[:, :2].any()


def test_max_depth_scales_sparse_depth():
    inputs = ("background", "image", "sparse")
    near, far = (build(inputs=inputs, max_depth=metres).eval() for metres in (10.0, 80.0))
    nn.init.normal_(near.image[0].weight)  # what is added for sparse depth starts at 0
    far.load_state_dict(near.state_dict())
    sparse = torch.full((2, 1, 32, 32), 3.0)
    with torch.no_grad():
        expected = near(pair() | {"sparse": sparse})["mask"]
        assert torch.allclose(far(pair() | {"sparse": 8 * sparse})["mask"], expected, atol=1e-5)
        assert not torch.allclose(far(pair() | {"sparse": sparse})["mask"], expected, atol=1e-5)


@pytest.mark.parametrize(("inputs", "missing"), [(("image",), "background"), (("background", "sparse"), "image")])
@pytest.mark.parametrize("name", ["masknet", "depthmasknet"])
def test_missing_input_is_refused(name, inputs, missing):
    with pytest.raises(UsageError, match=f"data.inputs: .*add '{missing}'"):
        models.build_model(Model(name=name), inputs)
