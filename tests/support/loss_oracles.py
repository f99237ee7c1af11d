"""The loss terms once more, in float64 NumPy for one image (H,W), from their definitions and with plain loops."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CAMERA = np.array([[20.0, 0, 8.5], [0, 22.0, 7.0], [0, 0, 1]])
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def l1(depth: Array, truth: Array, valid: Array) -> Any:
    return np.abs(depth - truth)[valid].mean()


def l2(depth: Array, truth: Array, valid: Array) -> Any:
    return ((depth - truth)[valid] ** 2).mean()


def rmse(depth: Array, truth: Array, valid: Array) -> Any:
    return np.sqrt(l2(depth, truth, valid))


def abs_rel(depth: Array, truth: Array, valid: Array) -> Any:
    return (np.abs(depth - truth) / truth)[valid].mean()


def log_l1(depth: Array, truth: Array, valid: Array) -> Any:
    return l1(np.log(depth), np.log(truth), valid)


def monocular(depth: Array, truth: Array, valid: Array) -> Any:
    return log_l1(depth, truth, valid)


def log_rmse(depth: Array, truth: Array, valid: Array) -> Any:
    return rmse(np.log(depth), np.log(truth), valid)


def berhu(depth: Array, truth: Array, valid: Array) -> Any:
    error = np.abs(depth - truth)[valid]
    c = 0.2 * error.max()
    return np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in error])


def silog(depth: Array, truth: Array, valid: Array, *, forgiven: float = 0.85) -> Any:
    log = (np.log(depth) - np.log(truth))[valid]
    return np.sqrt((log**2).mean() - forgiven * log.mean() ** 2)


def depth_bce(depth: Array, truth: Array, valid: Array, *, reach: float = 10.0) -> Any:
    p, y = depth[valid] / reach, truth[valid] / reach
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def depth_dice(depth: Array, truth: Array, valid: Array, *, reach: float = 10.0) -> Any:
    return dice(depth[valid] / reach, truth[valid] / reach)


def dice(p: Array, y: Array) -> Any:
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def bce(p: Array, y: Array) -> Any:
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def laplace_nll(depth: Array, truth: Array, valid: Array, sigma: Array) -> Any:
    scale = sigma[valid] / np.sqrt(2)
    return -np.log(np.exp(-np.abs(np.log(depth / truth)[valid]) / scale) / (2 * scale)).mean()


def gaussian_nll(depth: Array, truth: Array, valid: Array, sigma: Array) -> Any:
    s = sigma[valid]
    return -np.log(np.exp(-((np.log(depth / truth)[valid] / s) ** 2) / 2) / (s * np.sqrt(2 * np.pi))).mean()


def gradient(depth: Array, truth: Array, valid: Array) -> Any:
    return slope(depth, truth, valid, (0, 1)) + slope(depth, truth, valid, (1, 0))


def slope(depth: Array, truth: Array, valid: Array, step: tuple[int, int]) -> Any:
    return np.mean([abs((depth[b] - depth[a]) - (truth[b] - truth[a])) for a, b in pairs(valid, step)])


def pairs(valid: Array, step: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Both-valid pixels a step (dy, dx) apart."""
    (dy, dx), (height, width) = step, valid.shape
    both = (((y, x), (y + dy, x + dx)) for y, x in product(range(height - dy), range(width - dx)))
    return [(a, b) for a, b in both if valid[a] and valid[b]]


def sobel(depth: Array, truth: Array, valid: Array) -> Any:
    kernel, error = np.outer([1, 2, 1], [-1, 0, 1]), depth - truth
    inner = product(range(1, depth.shape[0] - 1), range(1, depth.shape[1] - 1))
    around = [(slice(y - 1, y + 2), slice(x - 1, x + 2)) for y, x in inner]
    patches = [error[window] for window in around if valid[window].all()]
    return sum(np.mean([abs((patch * turned).sum()) for patch in patches]) for turned in (kernel, kernel.T))


def gradient_matching(depth: Array, truth: Array, valid: Array) -> Any:
    return matched(depth - truth, valid)


def matched(residual: Array, valid: Array) -> Any:
    value = 0.0
    for stride in (1, 2, 4, 8):
        error, known = residual[::stride, ::stride], valid[::stride, ::stride]
        steps = [abs(error[b] - error[a]) for step in ((0, 1), (1, 0)) for a, b in pairs(known, step)]
        value += sum(steps) / known.sum()
    return value


def aligned(depth: Array, truth: Array, valid: Array, *, space: str, form: str) -> Array:
    """The residual of MiDaS, equations 2 to 5, with NumPy's own solver and median."""
    p, d = (1 / depth, 1 / truth) if space == "disparity" else (depth, truth)
    if form == "mse":
        scale, shift = np.linalg.lstsq(np.stack([p[valid], np.ones(valid.sum())], axis=1), d[valid])[0]
        return np.asarray(scale * p + shift - d)
    middles = [np.median(side[valid]) for side in (p, d)]
    spreads = [np.abs(side[valid] - middle).mean() for side, middle in zip((p, d), middles, strict=True)]
    return np.asarray((p - middles[0]) / spreads[0] - (d - middles[1]) / spreads[1])


def ssi(depth: Array, truth: Array, valid: Array, *, space: str = "disparity", form: str = "trim") -> Any:
    residual = aligned(depth, truth, valid, space=space, form=form)[valid]
    sizes = np.sort(residual**2 if form == "mse" else np.abs(residual))
    kept = int(0.8 * len(sizes)) if form == "trim" else len(sizes)
    return sizes[:kept].sum() / (2 * len(sizes))


def ssi_gradient(depth: Array, truth: Array, valid: Array, *, space: str = "disparity", form: str = "trim") -> Any:
    return matched(aligned(depth, truth, valid, space=space, form=form), valid)


def normals(depth: Array, truth: Array, valid: Array) -> Any:
    values = []
    for y, x in product(range(depth.shape[0] - 1), range(depth.shape[1] - 1)):
        if valid[y, x] and valid[y, x + 1] and valid[y + 1, x]:
            a, b = (normal(side, y, x) for side in (depth, truth))
            values.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.mean(values)


def normal(depth: Array, y: int, x: int) -> Array:
    here, right, below = (np.linalg.solve(CAMERA, [u, v, 1]) * depth[v, u] for v, u in ((y, x), (y, x + 1), (y + 1, x)))
    return np.cross(right - here, below - here)


def smoothness(depth: Array, valid: Array, image: Array) -> Any:
    inverse = 1 / depth
    inverse = inverse / inverse[valid].mean()
    return sum(
        np.mean([abs(inverse[b] - inverse[a]) * np.exp(-np.abs(image[:, *b] - image[:, *a]).mean()) for a, b in both])
        for both in (pairs(valid, (0, 1)), pairs(valid, (1, 0)))
    )


def ssim_windows(a: Array, b: Array, valid: Array, *, reach: float) -> Array:
    """Similarity and structure of each window of valid pixels."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(taps, taps) / np.outer(taps, taps).sum()
    c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2
    found = []
    for y, x in product(range(a.shape[0] - 10), range(a.shape[1] - 10)):
        p, q, known = (side[y : y + 11, x : x + 11] for side in (a, b, valid))
        if known.all():
            mp, mq = (weights * p).sum(), (weights * q).sum()
            vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
            structure = (2 * (weights * (p - mp) * (q - mq)).sum() + c2) / (vp + vq + c2)
            found.append(((2 * mp * mq + c1) / (mp * mp + mq * mq + c1) * structure, structure))
    return np.array(found)


def similarity(a: Array, b: Array, valid: Array, *, reach: float) -> Any:
    return ssim_windows(a, b, valid, reach=reach)[:, 0].mean()


def ms_similarity(a: Array, b: Array, valid: Array, *, reach: float, scales: int) -> Any:
    weights, value = np.array(MS_WEIGHTS[:scales]) / sum(MS_WEIGHTS[:scales]), 1.0
    for scale, weight in enumerate(weights):
        whole, structure = ssim_windows(a, b, valid, reach=reach).mean(axis=0)
        value *= max(whole if scale == scales - 1 else structure, 0) ** weight
        a, b, valid = halved(a), halved(b), halved(valid.astype(float)) == 1
    return value


def halved(values: Array) -> Array:
    height, width = (side // 2 for side in values.shape)
    blocks = values[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))


def ssim(depth: Array, truth: Array, valid: Array) -> Any:
    return 1 - similarity(depth, truth, valid, reach=10.0)


def ms_ssim(depth: Array, truth: Array, valid: Array) -> Any:
    """For maps of 22 to 43 pixels: two scales."""
    return 1 - ms_similarity(depth, truth, valid, reach=10.0, scales=2)


def multiscale(
    levels: Sequence[Array],
    truth: Array,
    valid: Array,
    weights: Sequence[float],
    *,
    power: int = 1,
    relative: bool = False,
) -> Any:
    value = 0.0
    for level, weight in zip(levels, weights, strict=True):
        target, counted = shrunk(truth, valid, level.shape)
        error = np.abs(level - target)[counted] / (target[counted] if relative else 1)
        value += weight / sum(weights) * (error**power).mean()
    return value


def shrunk(truth: Array, valid: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean of the valid pixels of each block; sides that do not divide overlap, as adaptive pooling has it."""
    spans = [
        [slice(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]
        for old, new in zip(truth.shape, shape, strict=True)
    ]
    target, counted = np.ones(shape), np.zeros(shape, bool)
    for (y, rows), (x, columns) in product(*(enumerate(span) for span in spans)):
        known = valid[rows, columns]
        if known.any():
            target[y, x], counted[y, x] = truth[rows, columns][known].mean(), True
    return target, counted
