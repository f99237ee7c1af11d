"""Training samples by key: read from a source and changed here, or with their changes drawn for a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from depthray.batch import COLOURS, MAPS, Batch, Sample, Whole, collate, no_whole
from depthray.config.sections import Augment, Curriculum, Data
from depthray.data import sparse
from depthray.data.augmentation.augment import SampleChanges, augment, draw_changes
from depthray.data.augmentation.device_changes import DeviceChanges
from depthray.data.augmentation.warp import show_maps
from depthray.data.cameras.canonical_camera import to_canonical, with_camera
from depthray.data.curriculum import depth_scale_at, size_at
from depthray.data.resize import size_for_inference
from depthray.data.source import JoinedSets, Place, Source, StoredSource
from depthray.errors import DepthrayError, UsageError

Key = tuple[int, int]  # epoch, index of the frame in its source


class Loaded(NamedTuple):
    """A sample, and the changes still to be made of it on a device."""

    sample: Sample
    changes: SampleChanges | None


def changes_on_device(section: Augment, data: Data, device: torch.device) -> bool:
    """Whether a device changes samples. Raises UsageError where augment.device=device and it cannot."""
    corners = "sparse" in data.inputs and data.sparse.pattern == "features"
    if section.device == "device" and corners:
        raise UsageError(
            "augment.device=device: data.sparse.pattern=features looks for corners of changed images, which are on the "
            "device only later; set augment.device=cpu"
        )
    return section.device == "device" or (section.device == "auto" and device.type == "cuda" and not corners)


class TrainSamples(Dataset[Loaded | DepthrayError]):
    """Training samples by key."""

    def __init__(
        self, source: Source, data: Data, section: Augment, *, seed: int, curriculum: Curriculum, on_device: bool
    ) -> None:
        # In the canonical camera depth follows the focal length of what is shown, whatever made that.
        zoom = {"zoom_depth": section.zoom_depth and not data.canonical_focal}
        self.section = section.model_copy(update=zoom)
        self.source, self.data, self.seed, self.curriculum = source, data, seed, curriculum
        self.on_device = on_device
        # Of several sets: those of frames, and the metres within which the depth of each set counts.
        self._joined = source if isinstance(source, JoinedSets) else None
        least, most = data.min_depth, data.max_depth
        self._limits = [
            (least if each.min_depth is None else each.min_depth, most if each.max_depth is None else each.max_depth)
            for each in data.sets
        ]
        # Sparse depth is sampled here from depth, which has to be metres then.
        self._stored: StoredSource | None = None
        if "sparse" not in data.inputs and isinstance(source, StoredSource):
            self._stored = source

    def load(self, key: Key, place: Place | None = None) -> Loaded:
        """(epoch, index) -> sample (h,w) of the epoch's size, or of its frame's, in `place`, if a device changes it."""
        epoch, index = key
        native = self.source.read(index) if self._stored is None else self._stored.read_stored(index, place)
        native = with_camera(native, self.data)
        measured = (self.data.min_depth, self.data.max_depth)
        if self._joined is not None:
            number = self._joined.set_of(index)
            measured = self._limits[number]
            native["set"], native["limits"] = np.array(number), np.array(measured, np.float32)
        height, width = native["image"].shape[:2]
        options: dict[str, Any] = {
            "seed": self.seed,
            "epoch": epoch,
            "size": size_at(epoch, self.curriculum, last=self.data.size),
            "frame_size": size_for_inference(
                (height, width), self.data, camera=native.get("intrinsics"), name=native["id"]
            ),
            "measured": measured,
            "depth_scale": self._depth_scale(epoch),
        }
        if not self.on_device:
            return Loaded(self._finish(augment(native, self.section, **options), epoch, measured), None)
        sample, changes = draw_changes(native, self.section, **options)
        if "sparse" in self.data.inputs:
            sample = show_maps(sample, changes.view)  # sparse depth is drawn here, from depth of the network's size
        return Loaded(self._finish(sample, epoch, measured), changes)

    def __getitem__(self, key: Key) -> Loaded | DepthrayError:
        try:
            return self.load(key)
        except DepthrayError as error:
            # Raised in the training process: a loader process would wrap it into its own traceback.
            return error

    def _depth_scale(self, epoch: int) -> float:
        """Factor of depth at the size of an epoch; a canonical camera has its own."""
        return 1.0 if self.data.canonical_focal else depth_scale_at(epoch, self.curriculum, last=self.data.size)

    def _finish(self, sample: Sample, epoch: int, measured: tuple[float, float]) -> Sample:
        """Sample with sparse depth, of metres as sensors measure them, then as the canonical camera would see it."""
        sample = add_sparse(sample, self.data, key=f"{self.seed}:{epoch}:{sample['id']}", training=True)
        return to_canonical(sample, self.data, measured) if self.data.canonical_focal else sample


def collate_loaded(loaded: Sequence[Loaded], whole: Whole = no_whole) -> Batch:
    """B samples -> one batch (B,C,h,w), or of frames (B,C,H,W) with the changes to be made of them."""
    samples, changes = [each.sample for each in loaded], [each.changes for each in loaded if each.changes is not None]
    if not changes:
        return collate(samples)
    batch = collate(_pad(samples), whole)
    batch["changes"] = DeviceChanges.of(changes, with_maps="sparse" not in samples[0])
    return batch


def add_sparse(sample: Sample, data: Data, *, key: str, training: bool = False) -> Sample:
    """Sample (h,w) -> the same with sparse depth where that is an input: it is derived from depth, not read."""
    return sparse.attach(sample, data.sparse, key=key, training=training) if "sparse" in data.inputs else sample


def _pad(samples: Sequence[Sample]) -> list[Sample]:
    """Frames of different size -> of the largest, colour mirrored beyond the border, which is as far as is looked."""
    padded: list[dict[str, Any]] = [dict(sample) for sample in samples]
    for key in (key for key in (*COLOURS, *MAPS) if key in samples[0]):
        sizes = [sample[key].shape[:2] for sample in padded]
        rows, columns = (max(sides) for sides in zip(*sizes, strict=True))
        border = cv2.BORDER_REFLECT_101 if key in COLOURS else cv2.BORDER_CONSTANT
        for sample, (height, width) in zip(padded, sizes, strict=True):
            if (height, width) != (rows, columns):
                sample[key] = cv2.copyMakeBorder(sample[key], 0, rows - height, 0, columns - width, border)
    return padded  # type: ignore[return-value]
