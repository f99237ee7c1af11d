"""A network of a canonical camera, in metres of the camera of each frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.config.sections import Data
from depthray.errors import DataError


class CanonicalDepth(nn.Module):
    """A network whose depth is that of a camera with the focal length F, times f / F for one with f pixels.

    f is that of the batch's `intrinsics`, in pixels of the inputs: sqrt(fx fy). Sparse depth among the inputs is made
    that of the canonical camera before. The deviation of ln depth is that of any camera. See
    `depthray.data.cameras.canonical_camera`.
    """

    def __init__(self, network: nn.Module, *, focal: float) -> None:
        super().__init__()
        self.network, self.focal = network, focal
        model: Any = network
        while not hasattr(model, "stride"):  # AveragedModel holds the network as `module`
            model = model.module
        self.inputs, self.stride = model.inputs, model.stride
        for name in ("outputs", "uncertainty", "zero_padded"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.training = network.training

    def forward(self, batch: Batch) -> Prediction:
        """A batch with `intrinsics` (B,3,3) -> the prediction with depth (B,1,H,W) in metres of each frame's camera."""
        scale = focal_lengths(batch) / self.focal  # (B,1,1,1)
        given: Any = dict(batch)
        if "sparse" in self.inputs:
            given["sparse"] = given["sparse"] / scale
        prediction: Any = dict(self.network(given))
        for key in ("depth", "monocular"):
            if key in prediction:
                prediction[key] = prediction[key].float() * scale
        if "pyramid" in prediction:
            prediction["pyramid"] = [level.float() * scale for level in prediction["pyramid"]]
        return prediction  # type: ignore[no-any-return]


def focal_lengths(batch: Batch) -> Tensor:
    """A batch -> (B,1,1,1) float32 focal lengths in pixels of its inputs. Raises DataError where no camera is known."""
    if "intrinsics" not in batch:
        where = f"frame '{batch['id'][0]}': " if "id" in batch else ""
        raise DataError(
            f"{where}no camera is known, and this network needs the focal length of each frame "
            "(data.canonical_focal); give --intrinsics fx,fy,cx,cy, or data.intrinsics=fx,fy,cx,cy of a data set"
        )
    matrix = batch["intrinsics"].float()
    return torch.sqrt(matrix[:, 0, 0] * matrix[:, 1, 1])[:, None, None, None]


def in_metres(network: nn.Module, data: Data) -> nn.Module:
    """The network of a recipe's section as it predicts metres of each frame's own camera; most are as they are."""
    return CanonicalDepth(network, focal=data.canonical_focal) if data.scales_labels else network
