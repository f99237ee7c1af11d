"""The last step of every network of depth: logits to metres, what sparse depth adds to them, and refinement.

With sparse depth among its inputs a network predicts the shape c of ln depth, and the samples S say how far away it is:
depth = e^c * spread(S e^-c), and START * max_depth * e^c for an image without samples. At samples it is S, between them
it has the edges and slopes of e^c, of which a constant factor does not matter: so a network learns one thing for any
number of samples. The layer before begins at zero, and an untrained network answers with the spread samples themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.errors import UsageError
from depthray.models.layers import symbolic_size
from depthray.models.layers.auxiliary.log_sigma import LogSigma
from depthray.models.layers.auxiliary.valid_mask import ValidMask
from depthray.models.layers.blocks import upsample
from depthray.models.layers.completion.guided_fill import GuidedFill
from depthray.models.layers.completion.late_fusion import WIDTH as LATE_WIDTH
from depthray.models.layers.completion.late_fusion import LateFusion
from depthray.models.layers.completion.propagation import Propagation, PropagationOptions
from depthray.models.layers.inputs import fill_sparse, guide

NEAREST, FARTHEST = 0.001, 0.999  # shares of max_depth a guide is clamped to, where every activation has an inverse
START = 0.25  # share of max_depth predicted before training: 2.5 m of 10 m, a usual depth indoors
LARGEST = math.log(1000)  # of a shape of ln depth: from a millimetre to a metre, or back
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "relu": F.relu,
    "relu6": F.relu6,
}
LINEAR = ("relu", "relu6")  # activations whose logits are added to the spread samples, in shares of max_depth


def _softplus_inverse(share: Tensor) -> Tensor:
    """Shares above 0 -> the logits that softplus takes to them."""
    return share.expm1().log()


INVERSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.logit,
    "softplus": _softplus_inverse,
    "relu": torch.positive,  # itself
    "relu6": torch.positive,
}
BIASES = {  # the logit at which each activation is START
    "sigmoid": math.log(START / (1 - START)),
    "softplus": math.log(math.expm1(START)),
    "relu": START,
    "relu6": START,
}


@dataclass(frozen=True)
class Completion:
    """The keys of a recipe's model section that any architecture with a DepthHead takes."""

    start: Literal["samples", "legacy"] = "samples"
    refine: PropagationOptions | None = None
    uncertainty: Literal["none", "laplace", "gaussian"] = "none"
    valid_mask: bool = False
    fill: Literal["blocks", "guided"] = "blocks"
    sparse_fusion: Literal["early", "late"] = "early"

    @property
    def is_depth_alone(self) -> bool:
        """Whether nothing else is predicted."""
        return self.uncertainty == "none" and not self.valid_mask


class DepthHead(nn.Module):
    """Logits to metres: max_depth times a share, by one of ACTIVATIONS. Holds no weights but those of its options.

    `channels` are those of a network's features, `inputs` what it has seen of a batch: with late fusion no samples.
    """

    def __init__(
        self,
        activation: str,
        *,
        max_depth: float,
        inputs: tuple[str, ...] = ("image",),
        channels: int = 0,
        completion: Completion | None = None,
    ) -> None:
        super().__init__()
        options = completion or Completion()
        self.activation, self.inverse = ACTIVATIONS[activation], INVERSES[activation]
        self.is_linear = activation in LINEAR
        self.bias = BIASES[activation]
        self.max_depth = max_depth
        self.limit = max_depth if activation == "sigmoid" else math.inf
        if is_late := options.sparse_fusion == "late":
            inputs = (*inputs, "sparse")
        self.inputs = inputs
        self.corrects = "sparse" in inputs and options.start == "samples"
        self.is_shape = self.corrects and not self.is_linear  # whether logits are the shape of ln depth
        if (options.fill == "guided" or is_late) and not self.is_shape:
            key = "sparse_fusion=late" if is_late else "fill=guided"
            raise UsageError(
                f"model.{key} is for networks that spread samples: give sparse among data.inputs, with "
                "model.start=samples and no relu as the last activation"
            )
        self.late = LateFusion(channels, inputs=inputs) if is_late else None
        channels = LATE_WIDTH if is_late else channels
        self.fill = GuidedFill(channels, inputs=inputs) if options.fill == "guided" else None
        self.refine = (
            Propagation(options.refine, channels=channels, inputs=inputs, max_depth=max_depth)
            if options.refine
            else None
        )
        self.log_sigma = LogSigma(channels) if options.uncertainty != "none" else None
        self.valid_mask = ValidMask(channels) if options.valid_mask else None

    @property
    def auxiliary(self) -> list[nn.Module]:
        """What predicts maps along with depth."""
        return [part for part in (self.log_sigma, self.valid_mask) if part is not None]

    @property
    def is_full(self) -> bool:
        """Whether depth has the size of the inputs, whatever that of the logits is: samples are of single pixels."""
        return self.corrects or self.refine is not None

    def forward(self, logits: Tensor, batch: Batch, features: Tensor) -> Tensor:
        """(B,1,h,w) logits, inputs of a batch, (B,C,h',w') features -> (B,1,h,w) metres, float32.

        Of full size (B,1,H,W) where `is_full`.
        """
        return self.predict(logits, batch, features)["depth"]

    def predict(self, logits: Tensor, batch: Batch, features: Tensor) -> Prediction:
        """The same -> `depth`, and of its size what else there is: `log_sigma`, `valid`, `monocular`; float32"""
        if self.is_full:
            logits = _onto(logits.float(), self._full_size(batch))
        seen: Tensor | None = None
        if self.late is not None:
            seen = logits.clamp(-LARGEST, LARGEST)
            logits, features = self.late(seen, features, batch)
        depth = self._on_samples(logits, features, batch) if self.is_shape else self._metres(logits, batch)
        if self.refine is not None:
            depth = self.refine(depth, features, batch)
        prediction: Prediction = {"depth": depth}
        # For training alone, and no output of an exported graph.
        if seen is not None and not torch.compiler.is_exporting():
            prediction["monocular"] = START * self.max_depth * seen.exp()
        if not self.auxiliary:
            return prediction
        shares, size = _onto(depth, _size(features)) / self.max_depth, _size(depth)
        if self.log_sigma is not None:
            prediction["log_sigma"] = self.log_sigma(features, shares, size)
        if self.valid_mask is not None:
            prediction["valid"] = self.valid_mask(features, shares, size)
        return prediction

    def coarse(self, levels: list[Tensor], batch: Batch) -> list[Tensor]:
        """Logits (B,1,h,w) of coarser levels, inputs of a batch -> (B,1,h,w) metres of each, float32, not refined"""
        if not self.is_shape:
            return [self._metres(level, batch) for level in levels]
        size, count = self._full_size(batch), len(levels)
        full = torch.cat([_onto(level.float(), size) for level in levels])  # all at once: samples are spread once
        metres = self._spread(full, torch.cat([batch["sparse"]] * count), fill_sparse)
        # Not by chunk, with which a traced batch size is fixed.
        each_level = metres.reshape(count, -1, *metres.shape[1:]).unbind()
        return [_mean(each, (level.shape[-2], level.shape[-1])) for each, level in zip(each_level, levels, strict=True)]

    def init_bias(self, convolution: nn.Conv2d) -> None:
        """Set the last convolution so that depth before training is the spread samples, or about START * max_depth."""
        nn.init.constant_(convolution.bias, 0.0 if self.corrects else self.bias)  # type: ignore[arg-type]
        if self.corrects:
            nn.init.zeros_(convolution.weight)
        marked: Any = convolution
        marked.is_last = True  # its meaning is another with samples: weights of one kind do not fit the other

    def _metres(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,1,h,w) logits, inputs of a batch -> (B,1,h,w) metres, float32"""
        # float32 from here on: bf16 has steps of 6 cm between 8 and 16 m.
        logits, spread = logits.float(), guide(batch, self.inputs)
        if spread is None:
            return self.max_depth * self.activation(logits)
        near = _mean(spread.float(), (logits.shape[-2], logits.shape[-1]))  # (B,1,h,w)
        return self._added(logits, near) if self.corrects else self._legacy(logits, near)

    def _full_size(self, batch: Batch) -> tuple[int, int]:
        whole = batch[self.inputs[0]]  # type: ignore[literal-required]
        return whole.shape[-2], whole.shape[-1]

    def _on_samples(self, logits: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """(B,1,H,W) shapes of ln depth, (B,C,h,w) features, inputs of a batch -> (B,1,H,W) metres"""
        if (guided := self.fill) is None:
            return self._spread(logits, batch["sparse"], fill_sparse)
        return self._spread(logits, batch["sparse"], lambda ratios: guided(ratios, logits, features, batch))

    def _spread(self, logits: Tensor, samples: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        """(B,1,H,W) shapes of ln depth, (B,1,H,W) metres at samples and 0 elsewhere -> (B,1,H,W) metres"""
        shape = logits.clamp(-LARGEST, LARGEST).exp()
        scale = fill(samples.float() / shape)
        depth = shape * torch.where(scale > 0, scale, START * self.max_depth)
        # The gradient passes by the limit: a pixel beyond it would never return.
        return depth if math.isinf(self.limit) else depth + (depth.clamp(max=self.limit) - depth).detach()

    def _added(self, logits: Tensor, near: Tensor) -> Tensor:
        """(B,1,h,w) corrections and metres to start from or 0 -> (B,1,h,w) metres"""
        base = torch.where(near > 0, near, START * self.max_depth)
        return self.max_depth * self.activation(base / self.max_depth + logits)

    def _legacy(self, logits: Tensor, near: Tensor) -> Tensor:
        """The same as depthray 0.2 had it: logits of START plus those of the spread samples."""
        share = (near / self.max_depth).clamp(NEAREST, FARTHEST)
        return self.max_depth * self.activation(logits + torch.where(near > 0, self.inverse(share) - self.bias, 0.0))


def _size(values: Tensor) -> tuple[int, int]:
    return values.shape[-2], values.shape[-1]


def _mean(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,H,W) -> (B,1,h,w) means"""
    mean = symbolic_size.adaptive_mean if torch.compiler.is_exporting() else F.adaptive_avg_pool2d
    return mean(values, size)


def _onto(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,h,w) -> (B,1,H,W), bilinear where that is another size"""
    is_there = symbolic_size.same_size((values.shape[-2], values.shape[-1]), size)
    return values if is_there else upsample(values, size, corners=False)
