"""A loss term of one's own: the Huber loss. Weigh it with loss.terms={./THIS_FILE.py:own_loss: 0.1}.

Its parameters say what it is given: depth, truth, valid, image, intrinsics, pyramid, logits, mask. Check a change with
python -m depthray.testing ./THIS_FILE.py:own_loss.
"""

from __future__ import annotations

import torch
from torch import Tensor


def own_loss(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean of e^2 / 2 up to 1 m and |e| - 1/2 beyond, over each image's valid pixels."""
    # Masked before the arithmetic: a NaN at an invalid pixel would come back through the gradient of a product with 0.
    error = torch.where(valid, depth.float(), 0.0) - torch.where(valid, truth.float(), 0.0)
    size = error.abs()
    values = torch.where(size < 1, size.square() / 2, size - 0.5)
    return values.sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3)).clamp(min=1)
