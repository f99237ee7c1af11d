"""A network whose depth and confidence are corrected after its last layer."""

from __future__ import annotations

import math

from torch import nn

from depthray.batch import Batch, Prediction


class Calibrated(nn.Module):
    """A network whose depth p becomes exp(shift) p^slope, and the deviation s of ln depth temperature slope s.

    Its other maps stay as they are.

    It exports, and pads and reads the inputs, as the network does.
    """

    def __init__(self, network: nn.Module, *, shift: float, slope: float, temperature: float = 1.0) -> None:
        super().__init__()
        self.network, self.factor, self.slope = network, math.exp(shift), slope
        self.widening = math.log(temperature * slope)
        self.inputs, self.stride = network.inputs, network.stride
        for name in ("outputs", "uncertainty"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def forward(self, batch: Batch) -> Prediction:
        """A batch -> the prediction with depth (B,1,H,W) in corrected metres."""
        prediction: Prediction = self.network(batch)
        if "depth" not in prediction:
            return prediction
        depth = prediction["depth"].float()
        corrected: Prediction = {
            **prediction,
            "depth": self.factor * (depth if self.slope == 1.0 else depth**self.slope),
        }
        if "log_sigma" in prediction:
            corrected["log_sigma"] = prediction["log_sigma"].float() + self.widening
        return corrected
