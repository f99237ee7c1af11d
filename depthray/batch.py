"""The types that all steps share: sample, batch and prediction.

Letters: B batch, H W pixels, C channels. Depth is metres along the optical axis, float32, 0 where unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Metres = NDArray[np.float32]  # (H,W) depth, 0 = unmeasured


class Sample(TypedDict, total=False):
    """One frame in NumPy, as a source reads it. Keys are present only where the source has them."""

    image: NDArray[np.uint8]  # (H,W,3) RGB, upright
    depth: Metres  # or as stored, with `depth_scale`, where a loader asked for that
    depth_scale: NDArray[np.float32]  # (3) of `to_metres`: only of depth that is still as stored
    sparse: Metres  # at sampled pixels, 0 elsewhere
    teacher: Metres  # depth that another network predicted
    sigma: Metres  # the standard deviation of it
    semantics: NDArray[np.int32]  # (H,W) class ids
    instances: NDArray[np.int32]  # (H,W) instance ids
    background: NDArray[np.uint8]  # (H,W,3) the scene without its foreground object
    measurable: NDArray[np.uint8]  # (H,W) whether there is a depth to measure, as a data set says, see `data.source`
    mask: NDArray[np.uint8]  # (H,W) 1 on the foreground object, else 0; VOID where neither is known
    intrinsics: NDArray[np.float32]  # (3,3) pinhole matrix in pixels of this image
    distortion: NDArray[np.float64]  # (9) lens of an image that is not undistorted; only as a source reads it
    set: NDArray[np.int64]  # () number of its data set, where a run trains on several
    limits: NDArray[np.float32]  # (2) metres within which the depth of that set counts
    id: str
    scene: str
    source: str


class Changes(Protocol):
    """Random changes of a batch's samples that are drawn, and still to be made where the batch is used."""

    def make(self, batch: Batch) -> Batch:
        """Batch (B,C,H,W) of frames, on any device -> (B,C,h,w) changed, colour float32 of 0 to 255."""

    def pin_memory(self) -> Changes:
        """The same in page-locked memory."""


class Batch(TypedDict, total=False):
    """Samples stacked. Until `to_device` they have the narrow dtypes of storage, colour 0 to 255, and may be unchanged.

    The dtypes below are those after it.
    """

    image: Tensor  # (B,3,H,W) float32 in [0,1]
    depth: Tensor  # (B,1,H,W) float32 metres
    depth_scale: Tensor  # (B,3) of `to_metres`; gone after it
    changes: Changes  # made, and gone after it
    valid: Tensor  # (B,1,H,W) bool, where depth may be scored
    sparse: Tensor  # (B,1,H,W) float32 metres
    teacher: Tensor  # (B,1,H,W) float32 metres, as a teacher predicted them
    teacher_valid: Tensor  # (B,1,H,W) bool, where `teacher` may be learned from
    sigma: Tensor  # (B,1,H,W) float32 metres, the standard deviation of `teacher`; 0 = not known
    confidence: Tensor  # (B,1,H,W) float32 in (0,1], of `teacher` where terms of a loss compare with it
    semantics: Tensor  # (B,1,H,W) int64
    instances: Tensor  # (B,1,H,W) int64
    background: Tensor  # (B,3,H,W)
    measurable: Tensor  # (B,1,H,W) uint8 as of a sample; depth is 0 where it says NO
    mask: Tensor  # (B,1,H,W) float32 0 or 1
    mask_valid: Tensor  # (B,1,H,W) bool, where the mask is known; left out where it is known everywhere
    intrinsics: Tensor  # (B,3,3) float32
    set: Tensor  # (B) int64 number of the data set, where a run trains on several
    limits: Tensor  # (B,2) metres within which the depth of that set counts; gone after it
    id: list[str]
    scene: list[str]
    source: list[str]


class Prediction(TypedDict, total=False):
    """The output of a model."""

    depth: Tensor  # (B,1,H,W) metres
    pyramid: list[Tensor]  # coarser depths (B,1,h,w) in metres, finest first
    monocular: Tensor  # (B,1,H,W) metres without samples, of a network with late fusion
    mask: Tensor  # (B,1,H,W) logits of the foreground mask
    log_sigma: Tensor  # (B,1,H,W) ln of the standard deviation of ln depth
    valid: Tensor  # (B,1,H,W) logits of the probability that there is a depth to measure


VOID = 255  # in the mask of a sample: neither foreground nor background is known
COLOURS = ("image", "background")  # interpolated; (H,W,3) uint8
# Never interpolated; (H,W).
MAPS = ("depth", "sparse", "semantics", "instances", "mask", "measurable", "teacher", "sigma")
STRINGS = ("id", "scene", "source")
VALID = {"depth": "valid", "teacher": "teacher_valid"}  # the key of where it counts
WIDE = {"depth": torch.float32, "sparse": torch.float32, "mask": torch.float32}  # what networks compute with
WIDE |= {"semantics": torch.int64, "instances": torch.int64, "teacher": torch.float32, "sigma": torch.float32}
VECTORS = ("intrinsics", "depth_scale", "set", "limits")  # of each sample, not of each pixel


# The tensor (B,H,W[,3]) that a key's arrays are in already, as rows; None where they are not.
Whole = Callable[[str, Sequence[NDArray[Any]]], Tensor | None]


def no_whole(_key: str, _arrays: Sequence[NDArray[Any]]) -> None:
    """The arrays are in no tensor yet."""


def collate(samples: Sequence[Sample], whole: Whole = no_whole) -> Batch:
    """B samples (H,W[,3]) in NumPy -> one batch (B,C,H,W) on the CPU, in the dtypes of the samples.

    Arrays that are in one tensor already, by `whole`, are not copied.
    """
    batch: Batch = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]  # type: ignore[literal-required]
        batch[key] = values if key in STRINGS else _stack(key, values, whole)  # type: ignore[literal-required]
    if "mask" in batch:
        _separate_void(batch)
    return batch


def _separate_void(batch: Batch) -> None:
    """Mask (B,1,H,W) of 0, 1 and VOID -> of 0 and 1, with `mask_valid` where some of it is void."""
    void = batch["mask"] == VOID
    if void.any():  # else left out: terms and scores take every pixel then, as they do of masks without void
        batch["mask"] = batch["mask"].masked_fill(void, 0)
        batch["mask_valid"] = ~void


def _stack(key: str, arrays: list[NDArray[Any]], whole: Whole) -> Tensor:
    """B arrays (H,W,3) -> (B,3,H,W); (H,W) -> (B,1,H,W); (3,3) -> (B,3,3); () -> (B)."""
    there = whole(key, arrays)
    stacked = torch.from_numpy(np.stack(arrays)) if there is None else there
    if key in COLOURS:
        return stacked.permute(0, 3, 1, 2)  # (B,H,W,3) in memory: already channels_last
    if key in VECTORS:
        return stacked
    return stacked.unsqueeze(1)  # (B,H,W) -> (B,1,H,W)


def to_device(batch: Batch, device: torch.device, *, min_depth: float, max_depth: float) -> Batch:
    """Batch (B,C,H,W) -> on the device, colour in [0,1], `valid` where min_depth < depth < max_depth metres.

    Where samples of several data sets have limits of their own, these are what counts.
    It is copied in the dtypes of storage, which are a third of the bytes, and made float32 metres and int64 ids there.
    """
    moved = map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
    if "changes" in moved:
        moved = moved.pop("changes").make(moved)
    for key in COLOURS:
        if key in moved:
            moved[key] = moved[key].float() / 255.0  # type: ignore[literal-required]
    for key in WIDE.keys() & moved.keys():
        moved[key] = moved[key].to(WIDE[key])  # type: ignore[literal-required]
    least: float | Tensor = min_depth
    most: float | Tensor = max_depth
    if "limits" in moved:
        least, most = moved.pop("limits")[:, :, None, None, None].unbind(1)  # (B,1,1,1) each
    if "depth_scale" in moved:
        moved["depth"] = to_metres(moved["depth"], moved.pop("depth_scale"), (least, most))
    for key in VALID.keys() & moved.keys():
        moved[VALID[key]] = (moved[key] > least) & (moved[key] < most)  # type: ignore[literal-required]
    return moved


def map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with another tensor in the place of each."""
    changed = batch.copy()
    changed.update({key: change(value) for key, value in batch.items() if isinstance(value, Tensor)})  # type: ignore[typeddict-item]
    return changed


def to_metres(stored: Tensor, scale: Tensor, measured: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """(B,1,H,W) float32 as stored -> metres. `scale` (B,3): steps a metre; the zoom, a factor; 1 where limits hold.

    The limits in metres, one for all or (B,1,1,1), within which depth counts, are of the depth before a zoom: see
    `zoom_depth`.
    """
    steps, factor, limited = scale[:, :, None, None, None].unbind(1)
    metres = stored / steps
    outside = (limited > 0) & ~((metres > measured[0]) & (metres < measured[1]))
    return (metres * factor).masked_fill(outside, 0)


def constant(numbers: tuple[Any, ...], *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Floats, or tuples of them -> their tensor on the device, which callers share and do not change.

    It is copied there once: at each copy from Python's numbers the host would wait for a GPU.
    """
    if torch.compiler.is_compiling():  # the compiler keeps constants itself
        return torch.tensor(numbers, device=device, dtype=dtype)
    return _kept_constant(numbers, device, dtype)


@lru_cache(maxsize=64)
def _kept_constant(numbers: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # one made while predicting is used in training as well
        return torch.tensor(numbers, device=device, dtype=dtype)
