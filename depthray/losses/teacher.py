"""What terms compare with where a teacher's depth takes the place of the measured one: distillation by labels.

A term that the section `loss.teacher` names is computed of labels as it is of the truth, so that published losses are
weights: the affine-invariant error and the gradient matching of Depth Anything V2 (Yang et al. 2024, arXiv:2406.09414,
section 7.1: its L_gm weighs twice its L_ssi, and `ssi` of loss.ssi_form=mae is half of L_ssi, so `ssi: 2, ssi_gradient:
2`; the 10 % of a labelled image with the largest loss, which it leaves out, count here); the trimmed error of MiDaS
(Ranftl et al. 2020, arXiv:1907.01341); errors of ln depth, scale-invariant (Eigen et al. 2014, arXiv:1406.2283) or
plain, where a teacher predicts metres; and the likelihood of the teacher's depth by what the student predicts of its
own uncertainty, the self-teaching of Poggi et al. 2020 (arXiv:2005.06209).

Labels that a teacher is not sure of weigh less, as in the confidence-guided loss of Tonioni et al. 2017 (Unsupervised
Adaptation for Deep Stereo, ICCV): the mean over pixels of C(p) |error(p)|. Here C = min(1, sure / share), where share
is the label's standard deviation as a share of its depth: a label in doubt by twice loss.teacher.sure counts half, and
none counts more than one that is sure. Without a standard deviation C is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.batch import Batch
from depthray.config.sections import Loss
from depthray.errors import DataError
from depthray.losses._masked import mean
from depthray.losses.loss_inputs import LossInputs, with_shares

ADVICE = "label them with `depthray predict TEACHER --data SET --out LABELS --as-labels`, or leave loss.teacher out"


def labels(batch: Batch, section: Loss) -> Batch:
    """The batch with the teacher's depth (B,1,H,W) as its depth, with `confidence` where its deviation is known."""
    if "teacher" not in batch:
        name = next(iter(section.teacher.weights))
        raise DataError(f"loss.teacher.{name} needs the depth of a teacher, which the frames do not have; {ADVICE}")
    labelled = batch.copy()
    labelled["depth"], labelled["valid"] = batch["teacher"], batch["teacher_valid"]
    if "sigma" in batch:
        labelled["confidence"] = confidence(
            batch["teacher"], batch["sigma"], valid=batch["teacher_valid"], sure=section.teacher.sure
        )
    return with_shares(labelled) if section.target == "relative" else labelled


def confidence(depth: Tensor, sigma: Tensor, *, valid: Tensor, sure: float) -> Tensor:
    """(B,1,H,W) labels and their deviation in metres -> (B,1,H,W) in (0,1]; 1 where the deviation is not known.

    `sure` is the deviation, as a share of the depth, up to which a label counts fully.
    """
    # 1 where it does not count: what is not finite there must not reach a gradient by a product with 0.
    known = valid & torch.isfinite(sigma) & (sigma > 0)
    depth, sigma = torch.where(known, depth, 1.0), torch.where(known, sigma, 1.0)
    return torch.where(known, (sure * depth / sigma).clamp(max=1), 1.0)


def image_confidence(inputs: LossInputs) -> Tensor | float:
    """-> (B,) the mean confidence of each image's labels, by which its terms count; 1 where none is known.

    A term weighs pixels against others of their image. Times this, l1 is the mean over pixels of C |error|.
    """
    sure = inputs.confidence
    return 1.0 if sure is None else mean(sure, inputs.valid)
