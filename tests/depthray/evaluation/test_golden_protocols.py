"""Every published way of scoring depth, written down anew in float64 NumPy, against the protocol that stands for it.

Each formula takes single frames as its code base does, masks by indexing and never calls depthray.
"""

import numpy as np
import pytest
import torch

from depthray.evaluation import metrics, protocols
from depthray.evaluation.protocols import PROTOCOLS

SMALL, NYU, KITTI = (48, 64), (480, 640), (375, 1242)
EXACT = {"rel": 1e-6, "abs": 0}


def fixture(size=SMALL, count=6, *, holes=0.2, median=2.5):
    """(N,H,W) float32 predictions and truths: log-normal depth, an error of some 20 %, holes in the truth."""
    rng = np.random.default_rng(7)
    shape = (count, *size)
    truth = np.clip(rng.lognormal(np.log(median), 0.45, shape), 0.2, 9.5)
    scale = rng.uniform(0.8, 1.2, (count, 1, 1))
    prediction = np.clip(scale * truth * rng.lognormal(0.05, 0.18, shape), 0.15, 9.9)
    truth[rng.random(shape) < holes * np.linspace(0.2, 2, count)[:, None, None]] = 0
    return prediction.astype(np.float32), truth.astype(np.float32)


def ours(name, prediction, truth):
    """The library's scores of (N,H,W) predictions and truths under a protocol."""
    protocol = PROTOCOLS[name]
    predicted, measured = (torch.from_numpy(each)[:, None] for each in (prediction, truth))
    compared = protocols.compare(predicted, measured, protocol)
    sums = metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid)
    return metrics.scores(sums, pooled=protocol.pooled)


def mean_over_frames(score, prediction, truth):
    frames = [score(p, d) for p, d in zip(prediction.astype(np.float64), truth.astype(np.float64), strict=True)]
    return {name: np.mean([frame[name] for frame in frames]) for name in frames[0]}


def agree(scores, expected):
    assert {name: scores[name] for name in expected} == pytest.approx(expected, **EXACT)


def bts_errors(gt, pred):
    """BTS, and after it AdaBins: arrays of scored pixels."""
    ratio = np.maximum(gt / pred, pred / gt)
    log_error = np.log(pred) - np.log(gt)
    return {
        "silog": 100 * np.sqrt(np.mean(log_error**2) - np.mean(log_error) ** 2),
        "log10": np.mean(np.abs(np.log10(pred) - np.log10(gt))),
        "abs_rel": np.mean(np.abs(gt - pred) / gt),
        "sq_rel": np.mean((gt - pred) ** 2 / gt),
        "rmse": np.sqrt(np.mean((gt - pred) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(gt) - np.log(pred)) ** 2)),
        **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
    }


def bts_frame(pred, gt, *, crop=None, least=1e-3, most=10.0):
    pred = pred.copy()
    pred[pred < least] = least
    pred[pred > most] = most
    pred[np.isinf(pred)] = most
    pred[np.isnan(pred)] = least
    kept = np.logical_and(gt > least, gt < most)
    if crop is not None:
        inside = np.zeros(gt.shape)
        inside[crop] = 1
        kept = np.logical_and(kept, inside)
    return bts_errors(gt[kept], pred[kept])


def test_bts_whole_frames():
    prediction, truth = fixture()
    agree(ours("plain", prediction, truth), mean_over_frames(bts_frame, prediction, truth))


def test_bts_nyu_with_predictions_that_are_broken_or_out_of_range():
    prediction, truth = fixture(NYU, 2)
    prediction[:, 100, 100:103] = np.nan, np.inf, 40
    truth[:, 100, 100:103] = 3
    expected = mean_over_frames(lambda p, d: bts_frame(p, d, crop=np.s_[45:471, 41:601]), prediction, truth)
    agree(ours("nyu-bts", prediction, truth), expected)


def garg(height, width):
    rows = int(0.40810811 * height), int(0.99189189 * height)
    columns = int(0.03594771 * width), int(0.96405229 * width)
    return np.s_[rows[0] : rows[1], columns[0] : columns[1]]


def test_bts_kitti_on_the_whole_frame():
    prediction, truth = fixture(KITTI, 2, holes=0.4, median=9.0)
    prediction, truth = prediction * 7, truth * 7
    expected = mean_over_frames(lambda p, d: bts_frame(p, d, crop=garg(*KITTI), most=80.0), prediction, truth)
    agree(ours("kitti-garg", prediction, truth), expected)


def test_adabins_and_zoedepth_kitti_on_the_kb_cropped_frame():
    prediction, truth = fixture(KITTI, 2, holes=0.4, median=9.0)
    prediction, truth = prediction * 7, truth * 7
    top, left = 375 - 352, (1242 - 1216) // 2
    kb = np.s_[:, top : top + 352, left : left + 1216]

    def zoedepth(pred, gt):
        pred = np.nan_to_num(pred, nan=1e-3, posinf=80, neginf=1e-3).clip(1e-3, 80)
        return bts_frame(pred, gt, crop=garg(352, 1216), most=80.0)

    scores = ours("kitti-garg-kb", prediction, truth)
    agree(scores, mean_over_frames(zoedepth, prediction[kb], truth[kb]))
    assert scores["rmse"] != pytest.approx(ours("kitti-garg", prediction, truth)["rmse"], rel=1e-4)


def toolbox_frame(pred, gt):
    """Monocular-Depth-Estimation-Toolbox: the same errors, its logs from one difference, predictions not clamped."""
    inside = np.zeros(gt.shape, bool)
    inside[45:471, 41:601] = True
    kept = inside & (gt > 1e-3) & (gt < 10)
    gt, pred = gt[kept], pred[kept]
    difference = np.log(gt) - np.log(pred)
    worst = np.where(gt > pred, gt / pred, pred / gt)
    return {
        "abs_rel": (np.abs(gt - pred) / gt).sum() / gt.size,
        "sq_rel": (np.square(gt - pred) / gt).sum() / gt.size,
        "rmse": np.linalg.norm(gt - pred) / np.sqrt(gt.size),
        "rmse_log": np.linalg.norm(difference) / np.sqrt(gt.size),
        "log10": np.abs(difference).mean() / np.log(10),
        "silog": 100 * np.std(difference),
        "delta1": (worst < 1.25).mean(),
        "delta2": (worst < 1.25**2).mean(),
        "delta3": (worst < 1.25**3).mean(),
    }


def test_toolbox_agrees_where_nothing_is_clamped():
    prediction, truth = fixture(NYU, 2)
    agree(ours("nyu-bts", prediction, truth), mean_over_frames(toolbox_frame, prediction, truth))
    prediction[:, 100:200] *= 3
    clamped, free = ours("nyu-bts", prediction, truth), mean_over_frames(toolbox_frame, prediction, truth)
    assert clamped["rmse"] < 0.95 * free["rmse"]


def densedepth(first, second):
    """DenseDepth: pixels of all frames pooled; AbsRel divides by its first argument."""
    return {
        "abs_rel": np.mean(np.abs(first - second) / first),
        "rmse": np.sqrt(np.mean((first - second) ** 2)),
        "log10": np.mean(np.abs(np.log10(first) - np.log10(second))),
        **{f"delta{k}": np.mean(np.maximum(first / second, second / first) < 1.25**k) for k in (1, 2, 3)},
    }


def densedepth_pixels():
    prediction, truth = fixture(NYU, 2, holes=0.0)
    prediction[1] *= 1.4  # frames of unlike error, so that pooling shows
    rows, columns = np.arange(20, 459 + 1), np.arange(24, 615 + 1)  # both ends are inside
    cut = np.ix_(range(2), rows, columns)
    pixels = prediction.clip(0.1, 10)[cut].astype(np.float64).ravel(), truth[cut].astype(np.float64).ravel()
    assert pixels[0].size == 2 * 440 * 592
    return prediction, truth, *pixels


def test_densedepth_with_its_arguments_in_order():
    prediction, truth, p, d = densedepth_pixels()
    scores = ours("nyu-eigen-filled", prediction, truth)
    agree(scores, densedepth(d, p))
    per_frame = np.mean([np.sqrt(np.mean(each**2)) for each in (p - d).reshape(2, -1)])
    assert scores["rmse"] > 1.01 * per_frame


def test_densedepth_as_it_calls_itself_divides_by_the_prediction():
    prediction, truth, p, d = densedepth_pixels()
    scores, published = ours("nyu-eigen-filled", prediction, truth), densedepth(p, d)
    symmetric = {name: value for name, value in published.items() if name != "abs_rel"}
    agree(scores, symmetric)
    assert abs(published["abs_rel"] / scores["abs_rel"] - 1) > 0.05
    agree(ours("nyu-eigen-filled", truth, prediction.clip(0.1, 10)), published)  # truth and prediction exchanged


def scored_pixels(gt, crop, most=10.0):
    inside = np.zeros(gt.shape, bool)
    inside[crop if crop is not None else ...] = True
    return inside & (gt > 1e-3) & (gt < most)


def marigold_frame(pred, gt, *, crop=None):
    kept = scored_pixels(gt, crop)
    columns = np.stack([pred[kept], np.ones(kept.sum())], axis=1)
    scale, shift = np.linalg.lstsq(columns, gt[kept], rcond=None)[0]
    aligned = np.clip(np.clip(pred * scale + shift, 1e-3, 10), 1e-6, None)
    a, g = aligned[kept], gt[kept]
    log_error = np.log(a) - np.log(g)
    return {
        "abs_rel": np.mean(np.abs(a - g) / g),
        "sq_rel": np.mean(np.abs(a - g) ** 2 / g),
        "rmse": np.sqrt(np.mean((a - g) ** 2)),
        "rmse_log": np.sqrt(np.mean(log_error**2)),
        "log10": np.mean(np.abs(np.log10(a) - np.log10(g))),
        "irmse": 1e3 * np.sqrt(np.mean((1 / a - 1 / g) ** 2)),  # theirs is in 1/m
        "silog": 100 * np.sqrt(np.mean(log_error**2) - np.mean(log_error) ** 2),
        **{f"delta{k}": np.mean(np.maximum(a / g, g / a) < 1.25**k) for k in (1, 2, 3)},
    }


def affine(prediction):
    """A prediction whose scale and shift are lost."""
    return (0.02 * prediction + 0.3).astype(np.float32)


def test_marigold_aligns_depth():
    prediction, truth = fixture()
    agree(ours("affine-depth", affine(prediction), truth), mean_over_frames(marigold_frame, affine(prediction), truth))


EIGEN = np.s_[45:471, 41:601]


def test_marigold_aligns_depth_on_the_eigen_crop_of_nyu():
    prediction, truth = fixture(NYU, 2)
    lost = affine(prediction)
    lost[:, :40] *= 3  # pixels outside of the crop are neither fitted nor scored
    scores = ours("affine-depth-nyu", lost, truth)
    agree(scores, mean_over_frames(lambda p, d: marigold_frame(p, d, crop=EIGEN), lost, truth))
    assert scores["rmse"] < 0.95 * ours("affine-depth", lost, truth)["rmse"]


def midas_frame(pred, gt, *, crop=None):
    """MiDaS: the 2x2 normal equations in disparity, disparity capped at that of 10 m, then inverted."""
    kept = scored_pixels(gt, crop)
    disparity, expected = 1 / pred[kept], 1 / gt[kept]
    a00, a01, a11 = np.sum(disparity**2), np.sum(disparity), kept.sum()
    b0, b1 = np.sum(disparity * expected), np.sum(expected)
    det = a00 * a11 - a01**2
    scale, shift = (a11 * b0 - a01 * b1) / det, (-a01 * b0 + a00 * b1) / det
    aligned = scale * disparity + shift
    aligned[aligned < 1 / 10] = 1 / 10
    return bts_errors(gt[kept], 1 / aligned)


def test_midas_and_depth_anything_align_disparity():
    prediction, truth = fixture()
    lost = (1 / (3 / prediction + 1.5)).astype(np.float32)
    scores = ours("affine-disparity", lost, truth)
    agree(scores, mean_over_frames(midas_frame, lost, truth))
    assert scores["abs_rel"] != pytest.approx(ours("affine-depth", lost, truth)["abs_rel"], rel=0.01)


def test_midas_aligns_disparity_on_the_eigen_crop_of_nyu():
    prediction, truth = fixture(NYU, 2)
    lost = (1 / (3 / prediction + 1.5)).astype(np.float32)
    lost[:, :40] *= 3
    scores = ours("affine-disparity-nyu", lost, truth)
    agree(scores, mean_over_frames(lambda p, d: midas_frame(p, d, crop=EIGEN), lost, truth))
    assert scores["rmse"] < 0.95 * ours("affine-disparity", lost, truth)["rmse"]


def monodepth2_frame(pred, gt, *, crop=None, most=10.0):
    kept = scored_pixels(gt, crop, most)
    scaled = pred[kept] * (np.median(gt[kept]) / np.median(pred[kept]))
    return bts_errors(gt[kept], scaled.clip(1e-3, most))


def test_monodepth2_scales_by_the_median():
    prediction, truth = fixture()
    pixels = [np.count_nonzero(each) for each in truth]
    assert {count % 2 for count in pixels} == {0, 1}  # an even number has two in the middle
    scores = ours("median-scaled", prediction / 7, truth)
    agree(scores, mean_over_frames(monodepth2_frame, prediction / 7, truth))


def test_monodepth2_on_kitti_takes_the_medians_of_the_crop_up_to_80_m():
    prediction, truth = fixture(KITTI, 2, holes=0.4, median=9.0)
    prediction, truth = prediction / 5.4, truth * 7
    prediction[:, :150] *= 3
    assert truth.max() > 60
    expected = mean_over_frames(lambda p, d: monodepth2_frame(p, d, crop=garg(*KITTI), most=80.0), prediction, truth)
    scores = ours("median-scaled-kitti", prediction, truth)
    agree(scores, expected)
    assert scores["abs_rel"] != pytest.approx(ours("median-scaled", prediction, truth)["abs_rel"], rel=0.01)


def dav2_frame(pred, gt):
    """Depth Anything V2: its silog forgives half of the common error and is not times 100."""
    kept = (gt >= 1e-3) & (gt <= 10)
    pred, gt = pred[kept], gt[kept]
    errors, log_error = bts_errors(gt, pred), np.log(pred) - np.log(gt)
    return errors | {"silog": np.sqrt(np.mean(log_error**2) - 0.5 * np.mean(log_error) ** 2)}


def test_depth_anything_v2_and_what_its_silog_is_in_ours():
    prediction, truth = fixture()
    expected = mean_over_frames(dav2_frame, prediction, truth)
    del expected["silog"]
    agree(ours("plain", prediction, truth), expected)
    for position in range(len(truth)):  # frame by frame: a mean of roots has no such relation
        scores = ours("plain", prediction[position][None], truth[position][None])
        theirs = mean_over_frames(dav2_frame, prediction[position][None], truth[position][None])["silog"]
        half = (scores["rmse_log"] ** 2 + (scores["silog"] / 100) ** 2) / 2
        assert np.sqrt(half) == pytest.approx(theirs, **EXACT)
        assert 100 * theirs > scores["silog"]


def nlspn_frame(pred, gt):
    """NLSPN: completion, inverse depth in 1/m, truth above 0.1 mm."""
    tiny, kept = 1e-8, gt > 1e-4
    pred, gt = pred[kept], gt[kept]
    inverse = 1 / (pred + tiny) - 1 / (gt + tiny)
    worst = np.maximum(pred / (gt + tiny), gt / (pred + tiny))
    return {
        "rmse": np.sqrt(np.sum((pred - gt) ** 2) / kept.sum()),
        "mae": np.sum(np.abs(pred - gt)) / kept.sum(),
        "irmse": 1e3 * np.sqrt(np.sum(inverse**2) / kept.sum()),  # 1/m to 1/km
        "imae": 1e3 * np.sum(np.abs(inverse)) / kept.sum(),
        "abs_rel": np.sum(np.abs(pred - gt) / (gt + tiny)) / kept.sum(),
        **{f"delta{k}": np.mean(worst < 1.25**k) for k in (1, 2, 3)},
    }


def test_nlspn_on_the_middle_of_240x320():
    prediction, truth = fixture((240, 320), 2)
    prediction[:, 100] *= 20  # nothing is clamped
    cut = np.s_[:, 6:234, 8:312]
    scores = ours("nyu-s2d", prediction, truth)
    agree(scores, mean_over_frames(nlspn_frame, prediction[cut], truth[cut]))
    assert scores["mae"] > 1.05 * ours("plain", prediction, truth)["mae"]


def test_sparse_to_dense_takes_every_second_pixel_of_the_truth():
    prediction, truth = fixture(NYU, 2)
    coarse = np.ascontiguousarray(prediction[:, ::2, ::2])
    cut = np.s_[:, 6:234, 8:312]
    agree(ours("nyu-s2d", coarse, truth), mean_over_frames(nlspn_frame, coarse[cut], truth[:, 1::2, 1::2][cut]))
