"""Corruptions of a frame at five strengths, each a pure function of the frame, its index and the strength.

Samples of sparse depth are dropped from batches, since the loader draws them.

Sizes in pixels are those of a frame of 320 pixels' width, and grow with it. Exposure is in linear light (gamma 2.2);
fog is Koschmieder's law, I exp(-b d) + A (1 - exp(-b d)), with the measured depth d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, Batch, Sample
from depthray.data.augmentation.camera_changes import REFERENCE_WIDTH, as_jpeg, blur_by_motion, motion_kernel

STRENGTHS = (1, 2, 3, 4, 5)
GAMMA, AIRLIGHT = 2.2, 230.0

Rgb = NDArray[np.uint8]
Picture = NDArray[Any]  # (H,W,3), not yet rounded


class Corruption(NamedTuple):
    """A corruption and how strong it is at each of the five strengths."""

    about: str
    values: tuple[float, float, float, float, float]
    apply: Callable[[Sample, float, np.random.Generator], Sample]


def corrupted(sample: Sample, name: str, strength: int, *, index: int) -> Sample:
    """A frame with a corruption of `CORRUPTIONS` at a strength of 1 to 5."""
    corruption = CORRUPTIONS[name]
    # Of each frame its own: two networks see the same dirt.
    rng = np.random.default_rng((index, strength))
    return corruption.apply(cast("Sample", dict(sample)), corruption.values[strength - 1], rng)


def _image(change: Callable[[Rgb, float, np.random.Generator], Picture]) -> Callable[..., Sample]:
    """A corruption of the photograph alone."""

    def apply(sample: Sample, value: float, rng: np.random.Generator) -> Sample:
        sample["image"] = np.clip(np.rint(change(sample["image"], value, rng)), 0, 255).astype(np.uint8)
        return sample

    return apply


def _scale(image: Rgb) -> float:
    return float(image.shape[1] / REFERENCE_WIDTH)


def _exposure(image: Rgb, stops: float, _: np.random.Generator) -> Picture:
    linear: Picture = np.clip((image / 255.0) ** GAMMA * 2.0**stops, 0, 1)
    return np.asarray(255 * linear ** (1 / GAMMA))


def _noise(image: Rgb, sigma: float, rng: np.random.Generator) -> Picture:
    return image + rng.normal(0, sigma, image.shape)


def _defocus(image: Rgb, sigma: float, _: np.random.Generator) -> Picture:
    return cv2.GaussianBlur(image, (0, 0), sigma * _scale(image))


def _motion(image: Rgb, length: float, rng: np.random.Generator) -> Picture:
    return blur_by_motion(image, motion_kernel(length, float(rng.uniform(0, 180)), width=image.shape[1]))


def _jpeg(image: Rgb, quality: float, _: np.random.Generator) -> Picture:
    return as_jpeg(image, int(quality))


def _white_balance(image: Rgb, gain: float, rng: np.random.Generator) -> Picture:
    gains = np.array([gain, 1, 1 / gain])
    return np.asarray(image * (gains if rng.random() < 0.5 else gains[::-1]))


def _resolution(image: Rgb, factor: float, _: np.random.Generator) -> Picture:
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height))


def _dirt(image: Rgb, share: float, rng: np.random.Generator) -> Picture:
    """Gray blobs out of focus that cover a share of the picture."""
    height, width = image.shape[:2]
    coarse = rng.random((8, 10)).astype(np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    edge = np.quantile(field, 1 - share)
    cover = 0.8 / (1 + np.exp(-(field - edge) / 0.03))
    return np.asarray(image * (1 - cover[..., None]) + 110 * cover[..., None])


def _fog(sample: Sample, density: float, _: np.random.Generator) -> Sample:
    depth = sample["depth"]
    measured = depth > 0
    far = np.where(measured, depth, np.median(depth[measured]) if measured.any() else 3.0)
    clear = np.exp(-density * cv2.resize(far, sample["image"].shape[1::-1]))[..., None]
    sample["image"] = np.rint(sample["image"] * clear + AIRLIGHT * (1 - clear)).astype(np.uint8)
    return sample


def _rotation(sample: Sample, degrees: float, rng: np.random.Generator) -> Sample:
    """A turned camera: what comes in from outside of the picture is its mirrored edge, without truth."""
    sign = 1 if rng.random() < 0.5 else -1
    return _warp(sample, lambda side: cv2.getRotationMatrix2D(side, sign * degrees, 1.0))


def _focal(sample: Sample, factor: float, _: np.random.Generator) -> Sample:
    """A longer focal length, as the middle of the picture has: depth stays as it is."""
    return _warp(sample, lambda side: cv2.getRotationMatrix2D(side, 0, factor))


def _warp(sample: Sample, matrix: Callable[[tuple[float, float]], NDArray[Any]]) -> Sample:
    values: dict[str, Any] = dict(sample)
    for key in (*COLOURS, *MAPS):
        if key not in values:
            continue
        height, width = values[key].shape[:2]
        turn = matrix(((width - 1) / 2, (height - 1) / 2))
        if key in MAPS:
            # Depth only in float, class ids exactly: both are moved as they are, to the nearest pixel.
            moved = cv2.warpAffine(values[key].astype(np.float32), turn, (width, height), flags=cv2.INTER_NEAREST)
            values[key] = moved.astype(values[key].dtype)
        else:
            values[key] = cv2.warpAffine(values[key], turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return cast("Sample", values)


CORRUPTIONS = {
    "dark": Corruption("exposure, stops below", (-0.5, -1.0, -1.5, -2.0, -3.0), _image(_exposure)),
    "bright": Corruption("exposure, stops above", (0.3, 0.6, 1.0, 1.5, 2.0), _image(_exposure)),
    "noise": Corruption("Gaussian noise, standard deviation of 255", (5, 10, 20, 35, 50), _image(_noise)),
    "defocus": Corruption("Gaussian blur, standard deviation in pixels", (0.5, 1.0, 2.0, 3.0, 4.5), _image(_defocus)),
    "motion": Corruption("motion blur, length in pixels", (3, 7, 11, 17, 25), _image(_motion)),
    "jpeg": Corruption("JPEG, quality", (60, 40, 25, 15, 8), _image(_jpeg)),
    "fog": Corruption("fog, extinction in 1 / m", (0.03, 0.06, 0.12, 0.2, 0.3), _fog),
    "dirt": Corruption("dirt on the lens, share of the picture", (0.05, 0.1, 0.2, 0.3, 0.45), _image(_dirt)),
    "white-balance": Corruption(
        "white balance, gain of red over blue", (1.05, 1.1, 1.2, 1.3, 1.45), _image(_white_balance)
    ),
    "resolution": Corruption("resolution, factor below", (1.5, 2.0, 3.0, 4.0, 6.0), _image(_resolution)),
    "rotation": Corruption("camera turned, degrees", (2, 5, 10, 15, 25), _rotation),
    "focal": Corruption("focal length, factor above", (1.1, 1.25, 1.5, 1.75, 2.0), _focal),
}
DROPOUT = "dropout"
DROPPED = (0.2, 0.4, 0.6, 0.8, 0.95)  # shares of the samples of sparse depth


def drop_samples(indices: Sequence[int], batch: Batch, strength: int) -> Batch:
    """A batch on the CPU with a share of its samples of sparse depth missing, those of each frame by its index."""
    kept = [
        np.random.default_rng((index, strength)).random(tuple(each.shape)) >= DROPPED[strength - 1]
        for index, each in zip(indices, batch["sparse"], strict=True)
    ]
    return {**batch, "sparse": batch["sparse"] * torch.from_numpy(np.stack(kept))}


def meanings() -> dict[str, str]:
    """What each corruption is, with its values at the five strengths."""
    values = {name: (each.about, each.values) for name, each in CORRUPTIONS.items()}
    values |= {DROPOUT: ("samples of sparse depth missing, share", DROPPED)}
    return {name: f"{about} {', '.join(f'{value:g}' for value in each)}" for name, (about, each) in values.items()}
