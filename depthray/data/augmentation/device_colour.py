"""Colours of a batch changed on its device, as photometry.py has drawn them: as on the CPU, but for its rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from depthray.data.augmentation.jitter import JITTER
from depthray.data.augmentation.movable import Movable, Some
from depthray.data.augmentation.photometry import Drawn

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, in OpenCV's grey
FULL = 255.0
HUE_STEP = 2.0  # degrees in one of the 180 steps of OpenCV's hue
HUE = JITTER.index("hue")


@dataclass(frozen=True)
class ColourChanges(Movable):
    """The changes of colour of B samples, in the order in which they are made."""

    # (B,4,3): at each place in the jitter's order the share of its colour that a pixel keeps, and those of its grey and
    # of the mean grey that it gets.
    jitter: Tensor | None
    hues: tuple[Some | None, ...]  # (n,3) of `_shift`, at each place of that order
    gains: Some | None  # (n,2) factor, and what is added, of 255
    shifts: Some | None  # (n,3) of `_shift`
    blurs: Some | None  # (n,K) kernels
    noises: tuple[tuple[int, float, int], ...]  # position in the batch, standard deviation of 255, seed

    @staticmethod
    def of(drawn: Sequence[Drawn], noises: Sequence[tuple[float, int]]) -> ColourChanges:
        """What was drawn of each sample, and its noise by `photometry.draw_noise`."""
        numbered = list(enumerate(drawn))
        gains = {i: each["brightness_contrast"] for i, each in numbered if "brightness_contrast" in each}
        shifts = {i: each["hue_saturation_value"] for i, each in numbered if "hue_saturation_value" in each}
        return ColourChanges(
            jitter=_jitter(drawn),
            hues=tuple(Some.of(_hues(drawn, place)) for place in range(len(JITTER))),
            gains=Some.of({i: (each["alpha"], each["beta"]) for i, each in gains.items()}),
            shifts=Some.of({i: (HUE_STEP * s["hue_shift"], s["sat_shift"], s["val_shift"]) for i, s in shifts.items()}),
            blurs=Some.of(_kernels(drawn)),
            noises=tuple((i, sigma, seed) for i, (sigma, seed) in enumerate(noises) if sigma),
        )

    def make(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The (B,3,h,w) of image and background, 0 to 255, on the device of these tensors -> the same, changed."""
        # One tall image: contrast is relative to the mean, which has to be the same for image and background.
        tall = (torch.cat(list(images), dim=2) if len(images) > 1 else images[0]).round()
        if self.jitter is not None:
            for place, hue in enumerate(self.hues):
                tall = _mix(tall, self.jitter[:, place])
                tall = tall if hue is None else hue.change(tall, _shift)
        if self.gains is not None:
            tall = self.gains.change(tall, _gain)
        if self.shifts is not None:
            tall = self.shifts.change(tall, _shift)
        changed = list(tall.chunk(len(images), dim=2))
        if self.blurs is not None:
            changed = [self.blurs.change(image, _blur) for image in changed]
        return [self._add_noise(image) for image in changed]

    def _add_noise(self, image: Tensor) -> Tensor:
        if not self.noises:
            return image
        noisy = image.clone()
        generator = torch.Generator(image.device)
        for position, sigma, seed in self.noises:
            # By its own seed, whatever batch the sample is in; image and background get the same.
            generator.manual_seed(seed)
            noise = torch.randn(image.shape[1:], generator=generator, device=image.device)
            noisy[position] += (sigma * noise).trunc_()  # to whole values, as albumentations does
        return noisy.clamp_(0, FULL)


def _jitter(drawn: Sequence[Drawn]) -> Tensor | None:
    """-> (B,4,3) of `ColourChanges.jitter`, None where there is no jitter"""
    if not any("jitter" in each for each in drawn):
        return None
    shares = np.tile(np.array([1, 0, 0], np.float32), (len(drawn), len(JITTER), 1))
    for sample, each in zip(shares, drawn, strict=True):
        for place, operation in enumerate(each["jitter"]["order"]):
            name = JITTER[operation]
            if name != "hue":
                factor = each["jitter"][name]
                sample[place] = {
                    "brightness": (factor, 0, 0),
                    "contrast": (factor, 0, 1 - factor),
                    "saturation": (factor, 1 - factor, 0),
                }[name]
    return torch.from_numpy(shares)


def _hues(drawn: Sequence[Drawn], place: int) -> dict[int, tuple[float, float, float]]:
    """The shifts of the samples whose hue is changed at that place of their order, by position."""
    jitters = {i: each["jitter"] for i, each in enumerate(drawn) if "jitter" in each}
    return {i: (360 * each["hue"], 0, 0) for i, each in jitters.items() if each["order"][place] == HUE and each["hue"]}


def _kernels(drawn: Sequence[Drawn]) -> dict[int, np.ndarray]:
    """(K) kernels by position, all of the width of the widest."""
    kernels = {i: each["blur"]["kernel"].ravel() for i, each in enumerate(drawn) if "blur" in each}
    width = max((len(kernel) for kernel in kernels.values()), default=0)
    return {i: np.pad(kernel, (width - len(kernel)) // 2) for i, kernel in kernels.items()}


def _mix(images: Tensor, shares: Tensor) -> Tensor:
    """(B,3,h,w) and the shares (B,3) of colour, grey and mean grey -> (B,3,h,w)"""
    own, grey, mean = shares[:, :, None, None, None].unbind(1)
    # Python's numbers, here and below: a tensor made of them would be copied to the device, which waits for it.
    red, green, blue = (images[:, channel : channel + 1] * weight for channel, weight in enumerate(LUMA))
    greys = red + green + blue
    mixed = images * own + greys * grey + greys.mean(dim=(2, 3), keepdim=True) * mean
    # Whole values, as on the CPU: albumentations rounds those of saturation, and down those of its tables.
    return torch.where(grey == 0, mixed.floor(), mixed.round()).clamp_(0, FULL)


def _gain(images: Tensor, numbers: Tensor) -> Tensor:
    """(n,3,h,w) and (n,2) -> (n,3,h,w) times the first, plus the second"""
    factor, shift = numbers[:, :, None, None, None].unbind(1)
    return (images * factor + shift).floor_().clamp_(0, FULL)


def _shift(images: Tensor, numbers: Tensor) -> Tensor:
    """(n,3,h,w) and (n,3) degrees of hue, steps of 255 of saturation and value -> (n,3,h,w); grey stays grey"""
    degrees, saturation, value = numbers[:, :, None, None, None].unbind(1)
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    high, low = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = high - low
    by = spread.clamp(min=1e-6)
    blue_or_green = torch.where(high == green, 2 + (blue - red) / by, 4 + (red - green) / by)
    hue = torch.where(high == red, (green - blue) / by, blue_or_green) + degrees / 60
    share = (spread / high.clamp(min=1e-6) + saturation / FULL).clamp(0, 1) * (spread > 0)
    bright = (high + value).clamp(0, FULL)
    sixths = (torch.remainder(hue + start, 6) for start in (5, 3, 1))  # of the circle, of red, green and blue
    less = torch.cat([torch.minimum(each, 4 - each).clamp_(0, 1) for each in sixths], dim=1)
    return (bright - bright * share * less).round_()


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    """(n,3,h,w) and (n,K) -> (n,3,h,w) averaged with its sample's kernel down and across"""
    n, channels, height, width = images.shape
    reach = kernels.shape[1] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    weights = kernels.repeat_interleave(channels, dim=0)
    together = padded.reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    down = F.conv2d(together, weights[:, None, :, None], groups=n * channels)
    return F.conv2d(down, weights[:, None, None, :], groups=n * channels).reshape(images.shape)
