"""The affine-invariant terms of MiDaS (Ranftl et al. 2020, arXiv:1907.01341): scale and shift of an image do not count.

Prediction and truth of each image are aligned first, then compared; gradients flow through the alignment, as in the
published code (gist.github.com/ranftlr/1d6194db2e1dffa0a50c9b0a9549cbd2). Equations are those of the paper's section 5.
Where the two differ the paper is followed: the code sorts the residuals of a whole batch before it leaves out the
largest, and its medians of masked images count what is not valid as 0; here both are of the valid pixels of an image.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from depthray.losses._masked import NEAREST, amount, keep_valid, mean, total
from depthray.losses.gradients import roughness

Space = Literal["disparity", "depth"]
Form = Literal["mse", "mae", "trim"]

KEPT = 80  # per cent of an image's residuals that the trimmed form counts, U_m of equation 6
FLAT = 1e-5  # a spread below this share of the mean is rounding: there is no shape to align


def ssi(
    depth: Tensor,
    truth: Tensor,
    *,
    valid: Tensor,
    ssi_space: Space = "disparity",
    ssi_form: Form = "trim",
    confidence: Tensor | None = None,
) -> Tensor:
    """(B,1,H,W) depth of any scale and shift, (B,1,H,W) metres -> (B,) error of the aligned image.

    With R the residual of `aligned_residual` and M the valid pixels of the image:
    mse: sum R^2 / 2M (L_ssimse); mae: sum |R| / 2M (L_ssimae); trim: the 80 % smallest |R| alone / 2M (L_ssitrim).
    """
    residual, counted = aligned_residual(depth, truth, valid=valid, space=ssi_space, form=ssi_form)
    if ssi_form == "mse":
        return mean(residual.square(), counted, confidence) / 2
    size = residual.abs()
    if ssi_form == "mae":
        return mean(size, counted, confidence) / 2
    kept = counted & _smallest(size, counted)
    weighted = size if confidence is None else size * confidence
    return total(weighted, kept) / (2 * amount(counted, confidence))


def ssi_gradient(
    depth: Tensor,
    truth: Tensor,
    *,
    valid: Tensor,
    ssi_space: Space = "disparity",
    ssi_form: Form = "trim",
    confidence: Tensor | None = None,
) -> Tensor:
    """(B,1,H,W) depth of any scale and shift, (B,1,H,W) metres -> (B,) gradient matching of the aligned image.

    L_reg, equation 7: |x differences| + |y differences| of the residual per valid pixel, summed over 4 scales. MiDaS
    weighs it by 0.5 against `ssi`.
    """
    residual, counted = aligned_residual(depth, truth, valid=valid, space=ssi_space, form=ssi_form)
    return roughness(residual, counted, confidence)


def aligned_residual(depth: Tensor, truth: Tensor, *, valid: Tensor, space: Space, form: Form) -> tuple[Tensor, Tensor]:
    """(B,1,H,W) depth, (B,1,H,W) metres -> (B,1,H,W) residual R, 0 where not valid, and the pixels that count.

    mse, equations 2 to 4: R = s p + t - d with (s, t) the least-squares fit to the truth d, in its unit (1/m or m).
    mae and trim, equation 5: R = (p - median p) / s(p) - (d - median d) / s(d), s the mean |x - median x|; an image
    whose truth is flat has no s(d) and does not count.
    """
    predicted, true = (_in_space(side, valid, space) for side in (depth, truth))
    if form == "mse":
        return _fitted(predicted, true, valid) - true, valid
    target, is_flat = _normalised(true, valid)
    counted = valid & ~is_flat
    return torch.where(counted, _normalised(predicted, valid)[0] - target, 0.0), counted


def _in_space(depth: Tensor, valid: Tensor, space: Space) -> Tensor:
    """(B,1,H,W) depth -> (B,1,H,W) float32 depth or inverse depth, 0 where not valid."""
    if space == "depth":
        return keep_valid(depth, valid)
    return torch.where(valid, 1 / keep_valid(depth, valid, other=1.0).clamp(min=NEAREST), 0.0)


def _fitted(values: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,1,H,W) scale * values + shift nearest the truth by least squares, 0 where not valid."""
    middle, target = (_per_image(mean(side, valid)) for side in (values, truth))
    # Centred before the products: the raw moments of the published closed form lose float32's digits.
    off, distance = (torch.where(valid, side - each, 0.0) for side, each in ((values, middle), (truth, target)))
    spread = _per_image(mean(off.square(), valid))
    is_flat = spread <= (FLAT * middle).square()
    covariance = _per_image(mean(off * distance, valid))
    scale = torch.where(is_flat, 0.0, covariance / torch.where(is_flat, 1.0, spread))
    return torch.where(valid, scale * off + target, 0.0)


def _normalised(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B,1,H,W) -> (B,1,H,W) of median 0 and mean size 1, and (B,1,1,1) whether the image is flat."""
    off = torch.where(valid, values - _median(values, valid), 0.0)
    spread = _per_image(mean(off.abs(), valid))
    is_flat = spread <= FLAT * _per_image(mean(values.abs(), valid))
    # A flat image is only centred: divided by its rounding errors, its gradient would be of their size.
    return off / torch.where(is_flat, 1.0, spread), is_flat


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,1,1,1) median of the valid pixels, of an even number the mean of the two in the middle."""
    # Invalid pixels sort behind all valid ones.
    ordered = torch.where(valid, values, torch.inf).flatten(1).sort(dim=1).values
    count = valid.flatten(1).sum(dim=1, keepdim=True)
    middle = torch.cat([(count - 1).clamp(min=0) // 2, count // 2], dim=1)
    median = ordered.gather(1, middle).mean(dim=1, keepdim=True)
    return torch.where(count > 0, median, 0.0).view(-1, 1, 1, 1)


def _smallest(size: Tensor, counted: Tensor) -> Tensor:
    """(B,1,H,W) sizes -> (B,1,H,W) whether a pixel is among the KEPT per cent of its image with the smallest ones."""
    ordered = torch.where(counted, size.detach(), torch.inf).flatten(1).sort(dim=1).values
    number = KEPT * counted.flatten(1).sum(dim=1, keepdim=True) // 100
    limit = ordered.gather(1, (number - 1).clamp(min=0)).view(-1, 1, 1, 1)
    # Not `size <= limit`: NaN must stay in, so that the loss shows it.
    return ~(size > limit) & (number > 0).view(-1, 1, 1, 1)


def _per_image(values: Tensor) -> Tensor:
    """(B,) -> (B,1,1,1)."""
    return values.view(-1, 1, 1, 1)
