"""Frames of a data set with their predictions, in order: some batches in memory, whatever the number of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Data, Recipe
from depthray.data.cameras.canonical_camera import with_camera
from depthray.data.loader import load_ahead
from depthray.data.source import Source
from depthray.data.train_samples import add_sparse
from depthray.errors import DataError, UsageError
from depthray.imaging.export import valid_only
from depthray.predict import Predictor, optional_inputs

Maps = dict[str, NDArray[np.float32]]


class PredictedFrame(NamedTuple):
    """A frame of a data set with the maps (H,W) of a network, or with the reason why there are none."""

    position: int  # in the data set
    sample: Sample
    maps: Maps
    fault: str = ""


def predict_frames(
    source: Source, predictor: Predictor, indices: Sequence[int], *, section: Data, batch: int
) -> Iterator[PredictedFrame]:
    """The frames of these indices in order, (H,W) maps of each as `Predictor.maps` has them but for invalid depth, 0.

    `section` is that of the source, which may have the camera of frames without one of their own. Frames are read by a
    thread, some batches ahead. One that cannot be read, or whose inputs do not fit together, has a `fault`, and costs
    no other frame.
    """
    groups = [indices[start : start + batch] for start in range(0, len(indices), batch)]
    for read in load_ahead(partial(_read, source, predictor, section), groups):
        yield from _predict(predictor, read)


def check_inputs(source: Source, recipe: Recipe, *, where: str) -> None:
    """Raise UsageError where a data set lacks what the recipe's network needs besides the image."""
    data = recipe.data
    for key in data.inputs:
        # What is sampled from measured depth needs that instead.
        derived = key == "sparse" and data.sparse.pattern != "stored"
        needed = "depth" if derived else key
        if needed not in source.keys and key not in optional_inputs(recipe):
            raise UsageError(
                f"{where}: its frames have no '{needed}', which this network needs; its inputs are "
                f"{', '.join(data.inputs)}"
            )


class _ReadFrame(NamedTuple):
    """A frame as it was read, and as the network gets it."""

    position: int  # in the data set
    sample: Sample
    inputs: Sample
    fault: str = ""


def _read(source: Source, predictor: Predictor, section: Data, indices: Sequence[int]) -> list[_ReadFrame]:
    return [_read_frame(source, predictor, section, index) for index in indices]


def _read_frame(source: Source, predictor: Predictor, section: Data, index: int) -> _ReadFrame:
    try:
        sample = source.read(index)
        inputs = _with_sparse(sample, predictor, source.frames[index].id)
        return _ReadFrame(index, sample, with_camera(inputs.copy(), section) if predictor.needs_camera else inputs)
    except DataError as error:
        return _ReadFrame(index, {}, {}, str(error))


def _with_sparse(sample: Sample, predictor: Predictor, name: str) -> Sample:
    """The sample with sparse depth where the network takes it: the data set's own, or sampled from depth."""
    data = predictor.recipe.data
    needed = "sparse" if data.sparse.pattern == "stored" else "depth"
    if needed not in sample:
        return sample  # the network does without
    # With the key that an evaluation has, so that every call samples the same pixels.
    return add_sparse({**sample, "id": name}, data, key=f"{name}:{data.sparse.pattern}")


def _predict(predictor: Predictor, frames: Sequence[_ReadFrame]) -> Iterator[PredictedFrame]:
    readable = [frame for frame in frames if not frame.fault]
    try:
        predicted = dict(zip((frame.position for frame in readable), _maps(predictor, readable), strict=True))
    except DataError:  # of one of them: each by itself, so that the others are predicted
        predicted = {}
    for frame in frames:
        if frame.fault:
            yield PredictedFrame(frame.position, {}, {}, frame.fault)
        elif frame.position in predicted:
            yield PredictedFrame(frame.position, frame.sample, predicted[frame.position])
        else:
            yield _predict_alone(predictor, frame)


def _predict_alone(predictor: Predictor, frame: _ReadFrame) -> PredictedFrame:
    try:
        return PredictedFrame(frame.position, frame.sample, _maps(predictor, [frame])[0])
    except DataError as error:
        return PredictedFrame(frame.position, {}, {}, str(error))


def _maps(predictor: Predictor, frames: Sequence[_ReadFrame]) -> list[Maps]:
    if not frames:
        return []
    inputs: list[Any] = [frame.inputs for frame in frames]
    keys = [key for key in predictor.recipe.data.inputs if key != "image" and all(key in each for each in inputs)]
    others = {key: [each[key] for each in inputs] for key in keys}
    cameras: Any = [each["intrinsics"] for each in inputs] if predictor.needs_camera else None
    found: list[Maps] = predictor.maps([each["image"] for each in inputs], camera=cameras, **others)
    # 0 where the network says that there is none, as in the files of single images.
    return [{**maps, "depth": valid_only(maps["depth"], maps.get("valid"))} for maps in found]
