"""Published forms of the depth terms, their options, and the corners of single terms."""

import loss_oracles as oracles
import numpy as np
import pytest
import torch

from depthray.errors import UsageError
from depthray.losses import TERMS

HEIGHT, WIDTH = 13, 14


def frames(count=2, seed=3, low=0.5):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(low, 9, (count, 1, HEIGHT, WIDTH))
    depth = np.minimum(truth * rng.uniform(0.7, 1.4, truth.shape), 9.9)
    return depth, truth, rng.random(truth.shape) < 0.7


def tensors(*arrays):
    return [torch.tensor(array if array.dtype == bool else array.astype(np.float32)) for array in arrays]


def flat(values):
    """A map (1,1,H,W) of one row."""
    return torch.tensor(values).view(1, 1, 1, -1)


def test_unbiased_silog_times_10_is_that_of_adabins():
    depth, truth, valid = frames(count=1)
    log = (np.log(depth) - np.log(truth))[valid]
    adabins = 10 * np.sqrt(np.var(log, ddof=1) + 0.15 * log.mean() ** 2)
    depth, truth, valid = tensors(depth, truth, valid)
    found = TERMS["silog"](depth, truth, valid=valid, silog_unbiased=True)
    assert 10 * found.item() == pytest.approx(adabins, rel=2e-6)
    assert found.item() > TERMS["silog"](depth, truth, valid=valid).item() * 1.0005


def test_silog_of_lambda_05_is_that_of_depth_anything_v2():
    depth, truth, valid = frames(count=1)
    log = (np.log(depth) - np.log(truth))[valid]
    anything = np.sqrt((log**2).mean() - 0.5 * log.mean() ** 2)
    depth, truth, valid = tensors(depth, truth, valid)
    assert TERMS["silog"](depth, truth, valid=valid, silog_lambda=0.5).item() == pytest.approx(anything, rel=2e-6)


def test_unbiased_silog_of_a_single_pixel_has_no_variance():
    value = TERMS["silog"](flat([2.0]), flat([1.0]), valid=flat([True]), silog_unbiased=True)
    assert value.item() == pytest.approx(np.sqrt(0.15) * np.log(2), rel=1e-6)


def test_log_rmse_is_finite_where_the_formula_of_the_readme_of_seed_002_is_not():
    depth, truth = np.array([4.0, 2.0]), np.array([2.0, 2.0])
    with np.errstate(invalid="ignore"):
        printed = np.sqrt(np.log(truth) ** 2 - np.log(depth) ** 2).mean()
    assert np.isnan(printed)  # wherever |ln depth| > |ln truth|; hence log_rmse, and no term of that formula
    value = TERMS["log_rmse"](flat(depth), flat(truth), valid=flat([True, True]))
    assert value.item() == pytest.approx(np.log(2) / np.sqrt(2), rel=1e-6)


def test_log_rmse_of_a_dead_output_still_has_a_way_back():
    dead = torch.zeros(1, 1, 4, 4, requires_grad=True)
    TERMS["log_rmse"](dead, torch.full((1, 1, 4, 4), 2.0), valid=torch.ones(1, 1, 4, 4, dtype=torch.bool)).backward()
    assert torch.all(dead.grad < 0)


@pytest.mark.parametrize("name", ["gradient", "sobel", "gradient_matching", "normals", "smoothness"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 1)])
def test_maps_too_small_for_a_difference_cost_nothing(name, shape):
    depth = torch.rand(1, 1, *shape, requires_grad=True)
    truth, valid = torch.rand(1, 1, *shape) + 1, torch.ones(1, 1, *shape, dtype=torch.bool)
    extra = {"intrinsics": torch.tensor(oracles.CAMERA)[None]} if name == "normals" else {}
    if name == "smoothness":
        value = TERMS["smoothness"](depth, image=torch.rand(1, 3, *shape), valid=valid)
    else:
        value = TERMS[name](depth, truth, valid=valid, **extra)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(depth.grad).all()
    small = {"sobel": 3, "normals": 2}.get(name)
    assert (value == 0).all() if shape == (1, 1) or (small and min(shape) < small) else (value > 0).all()


def test_sobel_of_a_slope_is_eight_times_its_steps():
    truth = torch.zeros(1, 1, 6, 7)
    slope = torch.arange(7.0).mul(0.25).expand(1, 1, 6, 7)
    assert TERMS["sobel"](slope, truth, valid=truth == 0).item() == pytest.approx(8 * 0.25)
    assert TERMS["gradient"](slope, truth, valid=truth == 0).item() == pytest.approx(0.25)


def test_normals_of_a_tilted_plane_differ_by_its_angle():
    x = (torch.arange(24.0) - oracles.CAMERA[0, 2]) / oracles.CAMERA[0, 0]
    facing = torch.full((1, 1, 20, 24), 3.0)
    tilted = (3 / (1 - np.tan(0.3) * x)).float().expand(1, 1, 20, 24)  # z = 3 + tan(0.3) times the point's x
    camera = torch.tensor(oracles.CAMERA)[None]
    value = TERMS["normals"](tilted, facing, valid=facing > 0, intrinsics=camera)
    assert value.item() == pytest.approx(1 - np.cos(0.3), rel=1e-3)
    doubled = TERMS["normals"](2 * tilted, facing, valid=facing > 0, intrinsics=camera)
    assert doubled.item() == pytest.approx(value.item(), rel=1e-4)


def test_smoothness_forgives_edges_of_the_image_and_any_scale():
    depth = torch.cat([torch.full((1, 1, 8, 8), 2.0), torch.full((1, 1, 8, 8), 4.0)], dim=3)
    plain, edge = torch.zeros(1, 3, 8, 16), (depth > 3).float().expand(1, 3, 8, 16)
    cost = [TERMS["smoothness"](depth, image=image, valid=depth > 0).item() for image in (plain, edge)]
    assert cost[1] == pytest.approx(cost[0] * np.exp(-1), rel=1e-5)
    assert TERMS["smoothness"](5 * depth, image=plain, valid=depth > 0).item() == pytest.approx(cost[0], rel=1e-5)


def test_cross_entropy_of_depth_is_least_at_the_truth_and_ends_at_the_range():
    depth, truth, valid = tensors(*frames())
    at_truth = truth.clone().requires_grad_()
    TERMS["depth_bce"](at_truth, truth, valid=valid).sum().backward()
    assert at_truth.grad.abs().max() < 1e-7
    beyond = torch.full_like(truth, 12.0).requires_grad_()
    value = TERMS["depth_bce"](beyond, truth, valid=valid)
    value.sum().backward()
    assert (value > TERMS["depth_bce"](depth, truth, valid=valid)).all() and torch.all(beyond.grad[valid] > 0)


@pytest.mark.parametrize("reach", [10.0, 16.0])
def test_depth_range_is_the_depth_that_counts_as_one(reach):
    depth, truth, valid = frames(count=1)
    given = tensors(depth, truth, valid)
    for name in ("depth_bce", "depth_dice"):
        found = TERMS[name](*given[:2], valid=given[2], depth_range=reach)
        wanted = getattr(oracles, name)(depth[0, 0], truth[0, 0], valid[0, 0], reach=reach)
        assert found.item() == pytest.approx(wanted, rel=5e-6), name


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("shapes", [[(6, 7)], [(7, 7), (3, 5), (1, 1)]], ids=str)
def test_multiscale_is_the_oracle(norm, relative, shapes):
    depth, truth, valid = frames(count=2)
    valid[:, :, :6, :6] = False  # complete blocks without truth
    levels = [np.random.default_rng(5).uniform(1, 9, (2, 1, *shape)) for shape in shapes]
    weights = (0.32, 0.08, 0.02, 0.01)[: 1 + len(levels)]
    options = {"multiscale_weights": weights, "multiscale_norm": norm, "multiscale_relative": relative}
    given = tensors(depth, truth, valid)
    found = TERMS["multiscale"](*given[:2], valid=given[2], pyramid=tensors(*levels), **options)
    for place in range(2):
        scales = [level[place, 0] for level in (depth, *levels)]
        power = {"l1": 1, "l2": 2}[norm]
        sides = (truth[place, 0], valid[place, 0], weights)
        wanted = oracles.multiscale(scales, *sides, power=power, relative=relative)
        assert found[place].item() == pytest.approx(wanted, rel=5e-6)


@pytest.mark.parametrize(
    ("weights", "message"), [((1.0, 0.5), "give 3"), ((1.0,) * 5, "give 3"), ((0.0,) * 3, "all are 0")]
)
def test_multiscale_weights_must_fit_the_network(weights, message):
    depth, truth, valid = tensors(*frames())
    pyramid = [depth[..., ::2, ::2], depth[..., ::4, ::4]]
    with pytest.raises(UsageError, match=rf"loss\.multiscale_weights.*{message}"):
        TERMS["multiscale"](depth, truth, valid=valid, pyramid=pyramid, multiscale_weights=weights)


def test_every_level_of_a_pyramid_is_trained():
    depth, truth, valid = tensors(*frames())
    levels = [depth, depth[..., ::2, ::2], depth[..., ::4, ::4]]
    levels = [level.clone().requires_grad_() for level in levels]
    value = TERMS["multiscale"](levels[0], truth, valid=valid, pyramid=levels[1:], multiscale_weights=(1.0, 1.0, 0.0))
    value.sum().backward()
    assert [bool(level.grad.abs().sum() > 0) for level in levels] == [True, True, False]
