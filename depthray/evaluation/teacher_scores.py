"""Scores against the depth of a teacher, beside those against the measured one: how well a student imitates it."""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.config.sections import TEACHER_MONITORS
from depthray.evaluation import metrics
from depthray.evaluation.alignment import ComparedDepth


def teacher_scores(compared: ComparedDepth) -> dict[str, Tensor]:
    """(B,1,H,W) metres, the teacher's as the truth -> (B,) of each of TEACHER_MONITORS; NaN for a frame without labels.

    A student that is near its teacher and far from the truth has learned the errors of the teacher.
    """
    sums = metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid)  # (B,R,K)
    table = torch.from_numpy(metrics.image_scores(sums[:, 0].cpu().numpy()))
    return {name: table[:, metrics.METRICS.index(name.removeprefix("teacher_"))] for name in TEACHER_MONITORS}
