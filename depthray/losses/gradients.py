"""Terms that compare neighbourhoods of pixels: derivatives, surface normals, SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.evaluation import ssim as metric
from depthray.losses._masked import NEAREST, amount, error, keep_valid, mean, total

STRIDES = (1, 2, 4, 8)  # of gradient matching


def gradient(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean |error of forward differences| in metres a pixel, along x plus along y.

    A difference counts where both of its pixels are valid.
    """
    off = error(depth, truth, valid=valid)
    across, down = pairs(valid)
    sure_across, sure_down = pair_confidence(confidence)
    return mean(off.diff(dim=3).abs(), across, sure_across) + mean(off.diff(dim=2).abs(), down, sure_down)


def sobel(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean |error of Sobel derivatives| in eighths of a metre a pixel, along x plus along y.

    The kernels are the usual whole numbers 1, 2, 1; only windows of nine valid pixels count.
    """
    off = error(depth, truth, valid=valid)
    rows = valid[..., :-2, :] & valid[..., 1:-1, :] & valid[..., 2:, :]  # (B,1,H-2,W)
    windows = rows[..., :-2] & rows[..., 1:-1] & rows[..., 2:]  # (B,1,H-2,W-2)
    return mean(_derivative(off).abs(), windows) + mean(_derivative(off.mT).mT.abs(), windows)


def gradient_matching(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) sum over 4 scales of (|x differences| + |y differences| of the error) a valid pixel.

    The scales of MiDaS: the error at every pixel, every 2nd, 4th and 8th. Here the error is in metres; MiDaS itself
    takes that of the aligned image, which is `ssi_gradient`.
    """
    return roughness(error(depth, truth, valid=valid), valid, confidence)


def roughness(off: Tensor, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) error -> (B,) |x differences| + |y differences| per valid pixel, summed over 4 scales."""
    # Every s-th pixel, as in MiDaS: a mean over s pixels would mix in those that are not valid.
    return torch.stack([_roughness_at(off, valid, confidence, stride=stride) for stride in STRIDES]).sum(dim=0)


def normals(depth: Tensor, truth: Tensor, *, valid: Tensor, intrinsics: Tensor) -> Tensor:
    """(B,1,H,W) metres, (B,3,3) camera in its pixels -> (B,) mean 1 - cosine of the angle between surface normals.

    A normal is the cross product of the steps to the right and down, so it needs three valid pixels.
    """
    across, down = pairs(valid)
    corner = across[..., :-1, :] & down[..., :-1]  # (B,1,H-1,W-1)
    predicted, true = (_normals(keep_valid(side, valid), intrinsics.float()) for side in (depth, truth))
    # For unit vectors this is 1 - cosine, without its rounding error at small angles.
    return mean((predicted - true).square().sum(dim=1, keepdim=True) / 2, corner)


def smoothness(depth: Tensor, *, image: Tensor, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres, (B,3,H,W) image in [0,1] -> (B,) mean |change of inverse depth| e^-|change of image|, x plus y.

    Inverse depth is divided by its mean first, so that the term does not reward far predictions.
    """
    inverse = 1 / keep_valid(depth, valid, other=1.0).clamp(min=NEAREST)
    level = mean(inverse, valid).view(-1, 1, 1, 1)
    inverse = torch.where(valid, inverse / torch.where(level > 0, level, 1.0), 0.0)
    across, down = pairs(valid)
    # Unlike monodepth2's (Godard et al. 2019), over measured pixels alone: where there is no truth nothing is smoothed.
    return _edge_aware(inverse, image, counted=across, axis=3) + _edge_aware(inverse, image, counted=down, axis=2)


def ssim(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) 1 - SSIM over windows of valid pixels; 0 for an image without one."""
    # Without a window it is NaN, but a constant one, through which no gradient comes back.
    similarity = metric.ssim(keep_valid(depth, valid), keep_valid(truth, valid), data_range=depth_range, valid=valid)
    return torch.where(metric.has_window(valid), 1 - similarity, 0.0)


def ms_ssim(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) 1 - multi-scale SSIM over windows of valid pixels; 0 for an image without one."""
    similarity = metric.ms_ssim(keep_valid(depth, valid), keep_valid(truth, valid), data_range=depth_range, valid=valid)
    return torch.where(metric.has_window(valid), 1 - similarity, 0.0)


def pairs(valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B,1,H,W) -> (B,1,H,W-1) and (B,1,H-1,W), where a pixel and its right, or its lower, neighbour are both valid."""
    return valid[..., 1:] & valid[..., :-1], valid[..., 1:, :] & valid[..., :-1, :]


def pair_confidence(confidence: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """(B,1,H,W) -> (B,1,H,W-1) and (B,1,H-1,W), that of the less sure of a pixel and its right or lower neighbour."""
    if confidence is None:
        return None, None
    across = torch.minimum(confidence[..., 1:], confidence[..., :-1])
    return across, torch.minimum(confidence[..., 1:, :], confidence[..., :-1, :])


def _derivative(values: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,1,H-2,W-2): weights 1, 2, 1 down and -1, 0, 1 across."""
    # By slices: autocast would lower a convolution.
    smooth = values[..., :-2, :] + 2 * values[..., 1:-1, :] + values[..., 2:, :]
    return smooth[..., 2:] - smooth[..., :-2]


def _roughness_at(off: Tensor, valid: Tensor, confidence: Tensor | None, *, stride: int) -> Tensor:
    """(B,1,H,W) error -> (B,) sum of |x differences| and |y differences| per valid pixel, at one scale."""
    off, valid = off[..., ::stride, ::stride], valid[..., ::stride, ::stride]
    confidence = None if confidence is None else confidence[..., ::stride, ::stride]
    across, down = pairs(valid)
    x, y = off.diff(dim=3).abs(), off.diff(dim=2).abs()
    sure_across, sure_down = pair_confidence(confidence)
    if sure_across is not None and sure_down is not None:
        x, y = x * sure_across, y * sure_down
    return (total(x, across) + total(y, down)) / amount(valid, confidence)


def _normals(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """(B,1,H,W) metres, (B,3,3) -> (B,3,H-1,W-1) unit vectors."""
    points = _unproject(depth, intrinsics)
    right = points[..., :-1, 1:] - points[..., :-1, :-1]
    below = points[..., 1:, :-1] - points[..., :-1, :-1]
    # Unit steps: the product of steps of a millimetre would be of squares of it.
    return _unit(torch.linalg.cross(_unit(right), _unit(below), dim=1))


def _unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """(B,1,H,W) metres, (B,3,3) -> (B,3,H,W) points in metres, x right, y down, z forward."""
    height, width = depth.shape[-2:]
    x, y = (torch.arange(side, device=depth.device, dtype=depth.dtype) for side in (width, height))
    fx, fy, cx, cy = (intrinsics[:, row, column].view(-1, 1, 1, 1) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return torch.cat([(x - cx) / fx * depth, (y.view(-1, 1) - cy) / fy * depth, depth], dim=1)


def _unit(vectors: Tensor) -> Tensor:
    """(B,3,H,W) -> the same directions with length 1; 0 stays 0, with gradient."""
    tiny = torch.finfo(vectors.dtype).tiny
    # Scaled first: squares of steps of a millimetre, or of a kilometre, leave the precision of float32.
    scaled = vectors / vectors.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-20)
    return scaled / scaled.square().sum(dim=1, keepdim=True).clamp(min=tiny).sqrt()


def _edge_aware(inverse: Tensor, image: Tensor, *, counted: Tensor, axis: int) -> Tensor:
    """(B,1,H,W) inverse depth, (B,3,H,W) image -> (B,) mean change along an axis, less where the image changes."""
    edges = image.float().diff(dim=axis).abs().mean(dim=1, keepdim=True)
    return mean(inverse.diff(dim=axis).abs() * torch.exp(-edges), counted)
