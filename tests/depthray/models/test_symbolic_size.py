"""The formulas for any size give what ordinary passes give."""

import pytest
import torch
import torch.nn.functional as F

from depthray.models.layers import symbolic_size
from depthray.models.layers.inputs import fill_sparse

SIZES = [(1, 1), (1, 7), (2, 3), (33, 47), (64, 64), (97, 161), (240, 320)]


def samples(size, share=0.02):
    generator = torch.Generator().manual_seed(size[0])
    metres = torch.rand(3, 1, *size, generator=generator)
    kept = torch.rand(3, 1, *size, generator=generator) < share
    kept[0] = False  # an image without samples
    return torch.where(kept, 1 + 9 * metres, 0.0)


def filled_before(sparse):
    """`fill_sparse` as it was before sizes could be symbols."""
    maps = [sparse]
    while max(maps[-1].shape[-2:]) > 1:
        known = (maps[-1] > 0).to(sparse.dtype)
        total, count = (F.avg_pool2d(values, 2, ceil_mode=True) for values in (maps[-1], known))
        maps.append(torch.where(count > 0, total / count.clamp(min=0.25), 0.0))
    full = maps.pop()
    for level in reversed(maps):
        size = (level.shape[-2], level.shape[-1])
        full = torch.where(level > 0, level, F.interpolate(full, size=size, mode="bilinear", align_corners=False))
    return full


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.7])
def test_sparse_depth_is_filled_as_ever(size, share):
    sparse = samples(size, share)
    assert torch.equal(fill_sparse(sparse), filled_before(sparse))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.7])
def test_sparse_depth_is_filled_the_same_for_any_size(size, share):
    sparse = samples(size, share)
    torch.testing.assert_close(symbolic_size.fill_sparse(sparse), fill_sparse(sparse), rtol=1e-6, atol=1e-6)


def test_one_sample_reaches_every_pixel_of_the_largest_map():
    sparse = torch.zeros(1, 1, symbolic_size.MAX_SIDE, 8)
    sparse[..., 5, 5] = 3.0
    assert (symbolic_size.fill_sparse(sparse) > 0).all()


@pytest.mark.parametrize("size", [(7, 9), (33, 47), (65, 97), (240, 320)])
def test_means_around_a_pixel_are_those_of_pooling(size):
    values = torch.rand(2, 1, *size)
    side = max(1, min(size) // 16) | 1
    expected = F.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)
    torch.testing.assert_close(symbolic_size.local_mean(values, 16), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "smaller"), [((64, 96), (16, 24)), ((65, 97), (17, 25)), ((65, 97), (5, 7)), ((7, 9), (7, 9))]
)
def test_means_are_those_of_adaptive_pooling(size, smaller):
    values = torch.rand(2, 1, *size)
    expected = F.adaptive_avg_pool2d(values, smaller)
    torch.testing.assert_close(symbolic_size.adaptive_mean(values, smaller), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (37, 49), (40, 60), (20, 37)])
@pytest.mark.parametrize("antialias", [False, True])
def test_positions_are_resized_as_by_torch(size, antialias):
    square = torch.randn(1, 8, 37, 37, generator=torch.Generator().manual_seed(0))
    if antialias:
        expected = F.interpolate(square, size=size, mode="bicubic", antialias=True)
    else:
        scale = tuple((side + 0.1) / 37 for side in size)
        expected = F.interpolate(square, scale_factor=scale, mode="bicubic")
    resized = symbolic_size.resize_positions(square, size, offset=0.1, antialias=antialias)
    torch.testing.assert_close(resized, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_of_the_stored_size_are_themselves(antialias):
    square = torch.randn(1, 8, 37, 37)
    assert torch.equal(symbolic_size.resize_positions(square, (37, 37), offset=0.1, antialias=antialias), square)
