"""A checkpoint, or an export of one, turns photographs into depth in metres.

from depthray import load
depth = load("runs/x").predict("photo.jpg")     # (H,W) float32 metres
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from depthray.errors import UsageError
from depthray.network_inputs import colours, for_each, prepare, restore
from depthray.runs import locate
from depthray.runtimes.open import EAGER, has_own_threads, open_model
from depthray.runtimes.passes import ONE, Passes
from depthray.runtimes.passes import run as run_passes

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do not need it
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from depthray.batch import Sample
    from depthray.checkpoints.model_facts import ModelFacts
    from depthray.config.sections import Data, DepthKind, Recipe, Uncertainty
    from depthray.imaging.camera import Camera
    from depthray.imaging.depth_map import DepthMap
    from depthray.runtimes.precision import Precision

    Maps = dict[str, NDArray[np.float32]]

BATCH = 8  # images in one forward pass, at most, unless another number is given

MONOCULAR = "no sparse depth was given: the network answers as a monocular one, from the image alone"
_log = logging.getLogger(__name__)


class Predictor:
    """A trained network with the recipe it was trained by. Made by `load`."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        device: torch.device,
        runtime: str = EAGER,
        precision: Precision | None = None,
        facts: ModelFacts | None = None,
        passes: Passes = ONE,
        batch: int = BATCH,
    ) -> None:
        import torch

        from depthray.runtimes import torch_threads
        from depthray.runtimes.precision import Precision

        self.recipe = recipe
        self.precision = precision or Precision(device, torch.float32)
        self.device = device
        self.runtime = runtime  # what computes the network: PyTorch, or that of an export
        # Batches are small: another runtime's threads need the cores that PyTorch's would keep waiting on.
        self._threads = torch_threads.one_thread if has_own_threads(runtime) else nullcontext
        self.uncertainty: Uncertainty = getattr(model, "uncertainty", recipe.model.uncertainty)
        self.facts = facts  # what it was trained on; None where that was not recorded
        passes.check(recipe.data, metric=self.depth_kind == "metric")
        self.passes = passes  # of which a prediction is the mean
        self.batch = batch  # images in one forward pass, at most
        self._has_said_so = False  # that it has no sparse depth
        # channels_last, as in training: `collate` stacks images with their channels last in memory.
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of its depth are: "metric" for metres, else a kind that the recipe's loss left open."""
        return self.recipe.depth_kind

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """The inputs that it can do without, as it was trained without them too."""
        return optional_inputs(self.recipe)

    @property
    def needs_camera(self) -> bool:
        """Whether it predicts for any focal length, which each image must come with (data.canonical_focal)."""
        return self.recipe.data.canonical_focal > 0

    @property
    def has_confidence(self) -> bool:
        """Whether it says how sure it is of its depth (model.uncertainty, or the spread of predictions)."""
        return self.uncertainty != "none" and "depth" in self.recipe.data.targets

    def check_metres(self, purpose: str) -> None:
        """Raise a `UsageError` where the network's depth is not in metres, which the purpose needs."""
        from depthray.evaluation.protocols import MEANING

        if "depth" in self.recipe.data.targets and self.depth_kind != "metric":
            raise UsageError(f"{purpose} needs metres, and this network's depth is {MEANING[self.depth_kind]}")

    def __repr__(self) -> str:
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        network = f"{self.recipe.model.name}, {millions:.1f} million parameters" if millions else self.recipe.model.name
        return (
            f"<Predictor: {network}, inputs {', '.join(self.recipe.data.inputs)}, on {self.device} by {self.runtime}>"
        )

    @overload
    def predict(self, image: list[Any] | tuple[Any, ...], *, camera: Any = None, **others: Any) -> list[DepthMap]: ...

    @overload
    def predict(self, image: Any, *, camera: Any = None, **others: Any) -> DepthMap: ...

    def predict(self, image: Any, *, camera: Any = None, **others: Any) -> DepthMap | list[DepthMap]:
        """An image, upright -> (H,W) float32 metres along the optical axis; of several images a list of these.

        An image is a path, the bytes of a file, an image of Pillow, an array (H,W,3) or (H,W), or a tensor (3,H,W) or
        (1,H,W); several are a list of them, an array (B,H,W,3) or a tensor (B,3,H,W). Pixels are uint8, uint16, or
        floating-point numbers in [0, 1]. `camera` and `others` as for `maps`.

        The result is a NumPy array with `metres`, `png16()`, `points(camera)` and `colour()`, and where the network
        `has_confidence` with `sigma` and `confidence`, (H,W) float32; where it predicts that (model.valid_mask) with
        `valid`, (H,W) bool: whether there is a depth to measure. Where `depth_kind` is not "metric" the numbers have
        no unit; nearer is smaller all the same.
        """
        if "depth" not in self.recipe.data.targets:
            targets = ", ".join(self.recipe.data.targets)
            raise UsageError(f"this network was trained for {targets}, not depth; use maps()")
        return for_each(self._depths, image, others, camera)

    def _depths(
        self,
        images: Sequence[NDArray[np.uint8]],
        others: Sequence[Mapping[str, Any]],
        cameras: Sequence[Camera | None],
    ) -> list[DepthMap]:
        from depthray.evaluation.protocols import MEANING
        from depthray.imaging.depth_map import DepthMap
        from depthray.imaging.export import LIKELY

        depths = []
        for maps, rgb in zip(self._maps(images, others, cameras), images, strict=True):
            if "depth" not in maps:
                raise UsageError(f"this network predicts {', '.join(maps)}, not depth; use maps()")
            auxiliary: dict[str, Any] = {key: maps.get(key) for key in ("sigma", "confidence")}
            auxiliary["valid"] = maps["valid"] >= LIKELY if "valid" in maps else None
            depths.append(DepthMap(maps["depth"], image=rgb, meaning=MEANING[self.depth_kind], **auxiliary))
        return depths

    @overload
    def maps(self, image: list[Any] | tuple[Any, ...], *, camera: Any = None, **others: Any) -> list[Maps]: ...

    @overload
    def maps(self, image: Any, *, camera: Any = None, **others: Any) -> Maps: ...

    def maps(self, image: Any, *, camera: Any = None, **others: Any) -> Maps | list[Maps]:
        """An image, upright -> its targets, (H,W) float32: `depth` metres, `mask` in [0,1]; of several images a list.

        Where the network `has_confidence`, `sigma` in metres and `confidence` in [0,1] besides; with model.valid_mask
        `valid` in [0,1], the probability that there is a depth to measure.

        Images are as for `predict`. `others` are the further inputs the network was trained with, of the image's size:
        `background` (H,W,3) uint8 RGB, `sparse` (H,W) float32 metres with 0 where unmeasured, `semantics` and
        `instances` (H,W) whole numbers; of several images a list of each.
        `camera` is fx, fy, cx, cy or a matrix (3,3) in pixels of the image, of all images or a list of one for each;
        a network that `needs_camera` predicts metres of that camera, others do not look at it.
        A target that the network has no map for is left out. Where `optional_inputs` has `sparse`, it may be left out
        too, which is logged once.
        The network gets all of them at the size it was evaluated at; its output is resized back bilinearly.
        """
        return for_each(self._maps, image, others, camera)

    def warnings(self, image: Any, *, camera: Camera | None = None, depth: Any = None) -> list[str]:
        """What of an image, its camera and its predicted depth (H,W) is not as in training, in a sentence each.

        The image is as for `predict`. Empty where all is, or where the checkpoint does not say what it was trained on.
        """
        if self.facts is None:
            return []
        from depthray.cards import outside
        from depthray.imaging import image_inputs

        rgb = image_inputs.as_rgb(image, where="image")
        metres = None if depth is None or self.depth_kind != "metric" else depth
        focal = camera.fx if camera and not self.needs_camera else None  # of any focal length metres are right then
        return outside.warnings(self.facts.limits, self.recipe.data, rgb, focal=focal, depth=metres)

    def canonical_factor(self, size: tuple[int, int], camera: Camera | None) -> float:
        """(H,W) of an image and its camera -> by what its metres become those of the camera that the network knows."""
        from depthray.data.cameras.canonical_camera import label_factor
        from depthray.data.resize import scale_camera, size_for_inference

        data = self.recipe.data
        if camera is None or not data.scales_labels:
            return 1.0
        return label_factor(scale_camera(camera.matrix(), old=size, new=size_for_inference(size, data)), data)

    def _maps(
        self,
        images: Sequence[NDArray[np.uint8]],
        others: Sequence[Mapping[str, Any]],
        cameras: Sequence[Camera | None],
    ) -> list[Maps]:
        """Images (H,W,3) uint8, the further inputs and the camera of each -> maps (H,W) of each."""
        from depthray.runtimes import device_errors

        sections = [self._section(rgb) for rgb in images]
        samples = [
            prepare(rgb, self._with_optional(rgb, each), section, camera=camera)
            for rgb, each, section, camera in zip(images, others, sections, cameras, strict=True)
        ]
        tiled = [section is not self.recipe.data for section in sections]
        found: list[Maps] = []
        # Those of one size after another share a forward pass.
        for (_, is_tiled), group in groupby(
            zip(samples, tiled, strict=True), key=lambda pair: (pair[0]["image"].shape, pair[1])
        ):
            same = [sample for sample, _ in group]
            passes = self.passes if is_tiled else replace(self.passes, tiles=1)
            for start in range(0, len(same), self.batch):
                with device_errors.explained("give smaller images, or fewer at once, or another device", self.device):
                    found += self.run(same[start : start + self.batch], passes=passes)
        return [restore(maps, (rgb.shape[0], rgb.shape[1])) for maps, rgb in zip(found, images, strict=True)]

    def _section(self, rgb: NDArray[np.uint8]) -> Data:
        """The section by which an image is prepared: with tiles of a larger size, if the image has the detail."""
        from depthray.data.resize import size_for_inference

        data = self.recipe.data
        size = rgb.shape[0], rgb.shape[1]
        larger = self.passes.enlarged(data)
        if larger is data:
            return data
        return larger if self.passes.fits(size, size_for_inference(size, larger)) else data

    def _with_optional(self, rgb: NDArray[np.uint8], others: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The further inputs with maps of no samples for those that are left out and may be."""
        import numpy as np

        missing = [key for key in self.optional_inputs if key not in others]
        if missing and not self._has_said_so:
            _log.warning(MONOCULAR)
            self._has_said_so = True
        size = colours("image", rgb).shape[:2]
        return {**others, **{key: np.zeros(size, np.float32) for key in missing}}

    def run(self, samples: Sequence[Sample], *, passes: Passes = ONE) -> list[dict[str, NDArray[np.float32]]]:
        """Prepared samples of one size -> of each the maps (h,w) of the network, from these forward passes."""
        with self._threads():
            return self._run(samples, passes)

    def _run(self, samples: Sequence[Sample], passes: Passes) -> list[dict[str, NDArray[np.float32]]]:
        import torch

        from depthray import models
        from depthray.batch import collate, to_device
        from depthray.models.layers.confidence import confidence_maps

        data = self.recipe.data
        batch = collate(samples)
        models.check_ids(self.model, batch)  # before the batch goes to a GPU, where reading values would wait for it
        batch = to_device(batch, self.device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.inference_mode():
            with self.precision.active():
                outputs = run_passes(self.model, batch, passes)
            # Targets alone: other maps, such as a pyramid, serve training.
            maps = {key: outputs[key].float() for key in data.targets if key in outputs}  # type: ignore[literal-required]
            if not maps:
                raise UsageError(f"this network predicts {', '.join(outputs)}, none of {', '.join(data.targets)}")
            if "mask" in maps:
                maps["mask"] = maps["mask"].sigmoid()
            if self.recipe.model.valid_mask and {"depth", "valid"} <= outputs.keys():
                maps["valid"] = outputs["valid"].float().sigmoid()
            if self.has_confidence and {"depth", "log_sigma"} <= outputs.keys():
                maps |= confidence_maps(maps["depth"], outputs["log_sigma"], self.uncertainty)
        arrays = {key: value[:, 0].cpu().numpy() for key, value in maps.items()}  # (B,1,h,w) -> (B,h,w)
        return [{key: value[index] for key, value in arrays.items()} for index in range(len(samples))]


def optional_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The inputs that a network of this recipe can do without, as it was trained without them too."""
    data = recipe.data
    is_trained = data.sparse.may_be_none or recipe.loss.monocular > 0
    return ("sparse",) if {"sparse", "image"} <= set(data.inputs) and is_trained else ()


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    precision: str = "fp32",
    trust: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (),
    tiles: int = 1,
    confidence: str | None = None,
    ensemble: Sequence[str | os.PathLike[str]] = (),
    batch: int = BATCH,
) -> Predictor:
    """The predictor of a checkpoint, a run's best checkpoint or an export; on the GPU where there is one.

    `precision` is fp32, tf32, bf16, fp16, or auto for the fastest of the device. Only in fp32 depth is right to the
    millimetre: bf16 is off by centimetres at some metres. A prediction is the mean with that of the mirrored image
    (`flip`) and with those at multiples of the network's size (`scales`); images of `tiles` times that size are
    predicted in overlapping tiles too, for their detail. Each takes as many times longer as there are passes.
    Confidence is what the network says of it, or how far its prediction differs from that of the mirrored image
    (`confidence="flip"`) and from those of other checkpoints (`ensemble`), which see images of the same size.
    A forward pass has `batch` images at most.
    Code that comes with it, one's own of a checkpoint or an export that is native code, is run only with `trust`: it
    could do anything.
    """
    from depthray.runtimes import device_errors
    from depthray.runtimes.spread import Spread

    chosen = device_errors.chosen(device)
    spread = Spread.of(confidence, [locate.resolve(Path(each)) for each in ensemble])
    opened = open_model(locate.resolve(Path(path)), device=chosen, trust=trust, where=Path(path))
    if device and opened.device.type != chosen.type:
        raise UsageError(f"device {device}: {path} is an export that computes on the CPU; give its checkpoint instead")
    opened = spread.apply(opened, trust=trust) if spread else opened
    return Predictor(
        opened.network,
        opened.recipe,
        device=opened.device,
        runtime=opened.runtime,
        precision=_precision(precision, opened.device),
        facts=opened.facts,
        passes=Passes(flip, tuple(scales), tiles),
        batch=batch,
    )


def _precision(name: str, device: torch.device) -> Precision:
    from depthray.runtimes.precision import DTYPES, Precision

    if name not in (names := ("auto", *DTYPES)):
        raise UsageError(f"precision {name}: give one of {', '.join(names)}")
    return Precision.of(name, device, key="precision")
