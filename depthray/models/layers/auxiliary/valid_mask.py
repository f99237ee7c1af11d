"""Where there is a depth to predict: not in the sky, beyond the range, or where glass and mirrors show other places."""

from __future__ import annotations

import math

from depthray.models.layers.auxiliary.auxiliary_head import AuxiliaryHead

START = 0.9  # probability before training: of most data a tenth of the pixels or less has no depth


class ValidMask(AuxiliaryHead):
    """The logit of the probability that a pixel has a depth that can be measured, within the limits of training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, start=math.log(START / (1 - START)))
