"""An exported graph as a network: it takes a batch and returns a prediction, as the architectures of `models` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from depthray import models
from depthray.batch import COLOURS, Batch, Prediction
from depthray.errors import DataError, DepthrayError
from depthray.runtimes import torch_threads
from depthray.runtimes.export_folder import MASKS, ExportFolder

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]  # inputs and outputs in the order of the spec
MOST_LOGIT = 16.0  # in 32 bits the sigmoid of it is 1 but for one rounding


class ExportedNetwork(nn.Module):
    """What an export computes. Has no parameters: they are in the runtime, and are not trained."""

    num_classes: int  # class ids are below it; set only where the graph takes semantics
    _run: Run

    def __init__(self, folder: ExportFolder, run: Run, *, device: torch.device, own_threads: bool = False) -> None:
        super().__init__()
        self.own_threads = own_threads
        self.folder, self.spec, self.device = folder, folder.spec, device
        self.inputs = tuple(port.name for port in folder.spec.inputs)
        self.outputs = tuple(port.name for port in folder.spec.outputs)
        self.stride = folder.spec.stride
        self._run = run

    def forward(self, batch: Batch) -> Prediction:
        """inputs (B,C,H,W) of a batch -> (B,1,H,W) depth in metres, logits of masks, ln of the deviation of ln depth"""
        with torch_threads.one_thread() if self.own_threads else nullcontext():
            return self._predict(batch)

    def _predict(self, batch: Batch) -> Prediction:
        first = batch[models.maps_of(self.inputs)[0]]  # type: ignore[literal-required]
        self._check_size(first.shape[-2], first.shape[-1])
        values = [self._to_graph(key, batch[key]) for key in self.inputs]  # type: ignore[literal-required]
        maps = self._compute(values)
        if len(maps) != len(self.outputs):
            raise self.folder.refusal(f"its runtime gives {len(maps)} maps instead of {', '.join(self.outputs)}")
        prediction: dict[str, Tensor] = {}
        for key, value in zip(self.outputs, maps, strict=True):
            self._check_map(key, value, like=first)
            prediction[key] = (_logits(value) if key in MASKS else value).to(first.device)
        if "sigma" in prediction:
            # Of depth 0 the share is not known: that of a tiny one.
            tiny = torch.finfo(torch.float32).tiny
            sigma, depth = (each.clamp(min=tiny) for each in (prediction.pop("sigma"), prediction["depth"]))
            prediction["log_sigma"] = sigma.log() - depth.log()
        return prediction  # type: ignore[return-value]

    def _compute(self, values: list[Tensor]) -> Sequence[Tensor]:
        try:
            if self.spec.dynamic_batch:
                return self._run(values)
            frames = [self._run([value[index : index + 1] for value in values]) for index in range(len(values[0]))]
            return [torch.cat(maps) for maps in zip(*frames, strict=True)]
        except DepthrayError:
            raise
        except Exception as error:  # each runtime has its own classes
            raise self.folder.refusal(f"its runtime fails: {' '.join(str(error).split())[:200]}") from error

    def _to_graph(self, key: str, values: Tensor) -> Tensor:
        """(B,C,H,W) of a batch -> of a graph: there colour is 0 to 255."""
        if key in COLOURS:
            values = values.float() * 255.0
        dtype = torch.int64 if key in ("semantics", "instances") else torch.float32
        return values.detach().to(self.device, dtype)

    def _check_size(self, height: int, width: int) -> None:
        spec = self.spec
        if not spec.dynamic_size and (height, width) != spec.size:
            size = f"{spec.size[1]}x{spec.size[0]}"
            raise DataError(
                f"{self.folder.path}: takes frames of {size} alone, not {width}x{height}; set data.fit=exact and "
                f"data.size={spec.size[0]},{spec.size[1]}"
            )
        if max(height, width) > spec.largest_side or min(height, width) < spec.smallest_side:
            raise DataError(
                f"{self.folder.path}: takes sides of {spec.smallest_side} to {spec.largest_side} pixels, and a frame "
                f"has {width}x{height}; set data.fit=exact, or for larger ones export with another --max-side"
            )

    def _check_map(self, key: str, value: Tensor, *, like: Tensor) -> None:
        # A map may be coarser than the input, as those of networks are.
        fits = value.ndim == 4 and all(0 < a <= b for a, b in zip(value.shape[-2:], like.shape[-2:], strict=True))
        if value.dtype != torch.float32 or not fits or tuple(value.shape[:2]) != (like.shape[0], 1):
            raise self.folder.refusal(f"its {key} is {value.dtype} {tuple(value.shape)} for {tuple(like.shape)}")


def _logits(probability: Tensor) -> Tensor:
    """(B,1,H,W) in [0,1] -> logits; finite where a probability is rounded to 0 or 1."""
    probability = probability.clamp(torch.finfo(torch.float32).tiny, 1.0)
    return (probability.log() - (-probability).log1p()).clamp(max=MOST_LOGIT)
