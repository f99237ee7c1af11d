"""Curriculum: what changes from epoch to epoch, counted over both phases: chunks of the frames, sizes, scale weights.

Each is a pure function of the epoch, so that a resumed run and every loader process agree without a message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from depthray.config.sections import Curriculum, Loss
from depthray.data.source import Source
from depthray.errors import DataError

T = TypeVar("T")


def cut_into_chunks(indices: Sequence[int], source: Source, section: Curriculum, *, seed: int) -> list[Sequence[int]]:
    """Training indices -> chunks that differ by one frame at most; `difficulty` puts easy frames into the first."""
    if section.chunks == 1:
        return [indices]
    if section.order == "random":
        ordered = np.random.default_rng([seed, section.chunks]).permutation(np.asarray(indices))
    else:
        # Reads every frame once, on each worker: the order must be the same everywhere, and is not stored.
        scores = [difficulty(_read_depth(source, index)) for index in indices]
        # Stable, so that frames of equal difficulty keep their order on every platform.
        ordered = np.asarray(indices)[np.argsort(scores, kind="stable")]
    return [chunk.tolist() for chunk in np.array_split(ordered, section.chunks)]


def chunk_at(epoch: int, section: Curriculum) -> tuple[int, int]:
    """The chunk that an epoch (from 0) passes over, and how many epochs have passed over it before."""
    # After the last chunk comes the first again, so any number of epochs has frames.
    rounds, place = divmod(epoch, section.epochs_per_chunk * section.chunks)
    chunk, turn = divmod(place, section.epochs_per_chunk)
    return chunk, rounds * section.epochs_per_chunk + turn


def size_at(epoch: int, section: Curriculum, *, last: tuple[int, int]) -> tuple[int, int]:
    """The height and width in pixels that training samples have in an epoch (from 0); `last` is data.size."""
    return _stage(section.sizes, epoch // section.epochs_per_size, last=last)


def depth_scale_at(epoch: int, section: Curriculum, *, last: tuple[int, int]) -> float:
    """The factor that depth in metres has in an epoch (from 0), for one focal length in pixels in all of them.

    A convolution sees pixels and not the size of the frame. Resized to h x w instead of H x W, a frame is the picture
    that a camera of the focal length f sqrt(h w / H W) takes, and of one with f the same scene farther away:
    Z' = Z sqrt(H W / h w), as in `geometry.zoom_depth`. Trained so, a network need not learn its scale anew when the
    size changes.
    """
    if not section.scale_depth:
        return 1.0
    size = size_at(epoch, section, last=last)
    return math.sqrt(math.prod(last) / math.prod(size))


def loss_at(epoch: int, section: Curriculum, *, last: Loss) -> Loss:
    """The loss of an epoch (from 0): `last` is the recipe's, whose multiscale_weights earlier stages replace."""
    weights = _stage(section.scale_weights, epoch // section.epochs_per_scale_weights, last=last.multiscale_weights)
    return last.model_copy(update={"multiscale_weights": weights})


def _stage(stages: Sequence[T], number: int, *, last: T) -> T:
    return stages[number] if number < len(stages) else last  # after the last stage the recipe's own value


def difficulty(depth: NDArray[np.float32]) -> float:
    """(H,W) metres -> the structure of a frame: mean |difference of ln depth| of neighbours, over measured pairs.

    An empty wall scores near 0, a cluttered room high. A frame with nothing measured is the hardest: there is least to
    learn from it.
    """
    measured = depth > 0
    # Logarithms: a step of 10 % is as much structure at 1 m as at 5 m.
    log_depth = np.log(np.where(measured, depth, 1.0))
    total, pairs = 0.0, 0
    for axis in (0, 1):
        both = np.take(measured, range(1, depth.shape[axis]), axis) & np.take(
            measured, range(depth.shape[axis] - 1), axis
        )
        total += float(np.abs(np.diff(log_depth, axis=axis))[both].sum())
        pairs += int(both.sum())
    return total / pairs if pairs else float("inf")


def _read_depth(source: Source, index: int) -> NDArray[np.float32]:
    """Frame -> (H,W) metres"""
    sample = source.read(index)
    if "depth" not in sample:
        raise DataError(f"frame '{sample['id']}' has no depth to rank it by; use curriculum.order=random")
    return sample["depth"]
