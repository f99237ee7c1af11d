"""Structural similarity against a window-by-window float64 oracle."""

import loss_oracles as oracles
import numpy as np
import pytest
import torch

from depthray.errors import UsageError
from depthray.evaluation.ssim import ms_ssim, ssim


def maps(height=17, width=19, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 4, (2, 1, height, width))
    valid = rng.random(a.shape) < 0.995
    valid[..., :11, :11] = True
    return a, np.clip(a + rng.normal(0, 0.6, a.shape), 0, 4), valid


def tensors(*arrays, dtype=torch.float64):
    return [torch.tensor(array) if array.dtype == bool else torch.tensor(array, dtype=dtype) for array in arrays]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_value_is_the_oracle(masked, dtype, close):
    a, b, valid = maps()
    valid |= not masked
    given = tensors(a, b, valid, dtype=dtype)
    similarity = ssim(*given[:2], data_range=4.0, valid=given[2] if masked else None)
    expected = [oracles.similarity(*(side[i, 0] for side in (a, b, valid)), reach=4.0) for i in range(2)]
    assert similarity.dtype == dtype
    np.testing.assert_allclose(similarity.numpy(), expected, rtol=close)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (23, 2), (48, 3), (180, 5)])
def test_ms_ssim_is_the_oracle_over_the_scales_that_fit(side, scales):
    a, b, _ = maps(side, side + 1)
    valid = np.ones_like(a, bool)
    images = 1 if side > 100 else 2
    similarity = ms_ssim(*tensors(a[:images], b[:images]), data_range=4.0)
    expected = [
        oracles.ms_similarity(*(each[i, 0] for each in (a, b, valid)), reach=4.0, scales=scales) for i in range(images)
    ]
    np.testing.assert_allclose(similarity.numpy(), expected, rtol=1e-9)


def test_ms_ssim_leaves_out_the_scales_whose_windows_are_all_broken():
    a, b, valid = maps(24, 24)
    valid[:] = True
    valid[1, 0, 12, 12:] = False  # image 1: windows of 11 pixels remain, of 22 none
    given = tensors(a, b, valid)
    similarity = ms_ssim(*given[:2], data_range=4.0, valid=given[2])
    expected = [oracles.ms_similarity(*(each[i, 0] for each in (a, b, valid)), reach=4.0, scales=2 - i) for i in (0, 1)]
    np.testing.assert_allclose(similarity.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_equal_maps_are_similar_and_unlike_ones_are_not(measure):
    a, _, _ = tensors(*maps(32, 32))
    noise = torch.rand(a.shape, dtype=a.dtype, generator=torch.Generator().manual_seed(0)) * 4
    torch.testing.assert_close(measure(a, a, data_range=4.0), torch.ones(2, dtype=a.dtype))
    assert measure(a, noise, data_range=4.0).max() < 0.3


def test_a_data_range_of_255_hides_everything_from_values_up_to_1():
    a, _, _ = tensors(*maps(32, 32))
    noise = torch.rand(a.shape, dtype=a.dtype, generator=torch.Generator().manual_seed(0))
    assert (1 - ssim(a / 4, noise, data_range=255.0)).max() < 0.01
    assert (1 - ssim(a / 4, noise, data_range=1.0)).min() > 0.7


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_nan_where_no_window_is_whole_and_only_there(measure):
    a, b, valid = tensors(*maps(24, 24))
    valid[:] = True
    valid[0, 0, ::10, ::10] = False
    a[0, 0, 0, 0] = torch.nan
    a.requires_grad_()
    similarity = measure(a, b, data_range=4.0, valid=valid)
    assert torch.isnan(similarity[0]) and torch.isfinite(similarity[1])
    similarity[1].backward()
    assert torch.isfinite(a.grad).all() and torch.all(a.grad[0] == 0)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_gradient_is_the_slope_of_the_value(measure):
    a, b, valid = tensors(*maps(24, 23))
    a.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda side: measure(side, b[:1], data_range=4.0, valid=valid[:1]), a[:1], fast_mode=True
    )


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_opposite_and_flat_maps_have_finite_gradients(measure):
    flat, wave = torch.ones(1, 1, 24, 24), torch.rand(1, 1, 24, 24)
    for one, other in ((1 - wave, wave), (flat, wave), (flat, flat), (flat * 0, flat * 1e6)):
        one = one.clone().requires_grad_()
        value = measure(one, other, data_range=1.0)
        value.sum().backward()
        assert torch.isfinite(value).all() and torch.isfinite(one.grad).all()


def test_channels_count_alike():
    a, b, valid = tensors(*maps())
    both = ssim(torch.cat([a, b], dim=1), torch.cat([b, b], dim=1), data_range=4.0, valid=valid)
    torch.testing.assert_close(both, (ssim(a, b, data_range=4.0, valid=valid) + 1) / 2)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_maps_smaller_than_a_window_are_refused(measure):
    small = torch.rand(1, 1, 10, 40)
    with pytest.raises(UsageError, match="11x11 pixels, and the maps have 10x40"):
        measure(small, small, data_range=1.0)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_autocast_does_not_lower_the_precision(measure):
    a, b, _ = tensors(*maps(24, 24), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = measure(a, b, data_range=4.0)
    assert lowered.dtype == torch.float32 and torch.equal(lowered, measure(a, b, data_range=4.0))
