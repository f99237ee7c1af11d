"""A checkpoint, or an export of one, turns photographs into depth in metres.

from depthray import load
depth = load("runs/x").predict(rgb)     # (H,W,3) uint8 -> (H,W) float32 metres
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray.errors import DataError, UsageError
from depthray.runs import locate
from depthray.runtimes.open import EAGER, open_model

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do not need it
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from depthray.batch import Sample
    from depthray.config.sections import Data, DepthKind, Recipe


class Predictor:
    """A trained network with the recipe it was trained by. Made by `load`."""

    def __init__(self, model: nn.Module, recipe: Recipe, *, device: torch.device, runtime: str = EAGER) -> None:
        import torch

        self.recipe = recipe
        self.device = device
        self.runtime = runtime  # what computes the network: PyTorch, or that of an export
        # channels_last, as in training: `collate` stacks images with their channels last in memory.
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of its depth are: "metric" for metres, else a kind that the recipe's loss left open."""
        return self.recipe.loss.depth_kind

    def check_metres(self, purpose: str) -> None:
        """Raise a `UsageError` where the network's depth is not in metres, which the purpose needs."""
        from depthray.evaluation.protocols import MEANING

        if "depth" in self.recipe.data.targets and self.depth_kind != "metric":
            raise UsageError(f"{purpose} needs metres, and this network's depth is {MEANING[self.depth_kind]}")

    def predict(self, rgb: NDArray[np.uint8], **others: NDArray[Any]) -> NDArray[np.float32]:
        """(H,W,3) uint8 RGB, upright -> (H,W) float32 metres along the optical axis. `others` as for `maps`.

        Where `depth_kind` is not "metric" the numbers have no unit; nearer is smaller all the same.
        """
        if "depth" not in self.recipe.data.targets:
            targets = ", ".join(self.recipe.data.targets)
            raise UsageError(f"this network was trained for {targets}, not depth; use maps()")
        maps = self.maps(rgb, **others)
        if "depth" not in maps:
            raise UsageError(f"this network predicts {', '.join(maps)}, not depth; use maps()")
        return maps["depth"]

    def maps(self, rgb: NDArray[np.uint8], **others: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """(H,W,3) uint8 RGB, upright -> its targets, (H,W) float32: `depth` metres, `mask` in [0,1].

        `others` are the further inputs it was trained with, of the image's size: `background` (H,W,3) uint8 RGB,
        `sparse` (H,W) float32 metres with 0 where unmeasured, `semantics` and `instances` (H,W) whole numbers.
        A target that the network has no map for is left out.
        The network gets all of them at the size it was evaluated at; its output is resized back bilinearly.
        """
        data = self.recipe.data
        sample = prepare(rgb, others, data)
        return restore(self.run([sample])[0], (rgb.shape[0], rgb.shape[1]))

    def run(self, samples: Sequence[Sample]) -> list[dict[str, NDArray[np.float32]]]:
        """Prepared samples of one size -> of each the maps (h,w) of the network, from one forward pass."""
        import torch

        from depthray import models
        from depthray.batch import collate, to_device

        data = self.recipe.data
        batch = collate(samples)
        models.check_ids(self.model, batch)  # before the batch goes to a GPU, where reading values would wait for it
        batch = to_device(batch, self.device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.inference_mode():
            outputs = models.run(self.model, batch)
            # Targets alone: other maps, such as a pyramid, serve training.
            maps = {key: outputs[key].float() for key in data.targets if key in outputs}  # type: ignore[literal-required]
            if not maps:
                raise UsageError(f"this network predicts {', '.join(outputs)}, none of {', '.join(data.targets)}")
            if "mask" in maps:
                maps["mask"] = maps["mask"].sigmoid()
        arrays = {key: value[:, 0].cpu().numpy() for key, value in maps.items()}  # (B,1,h,w) -> (B,h,w)
        return [{key: value[index] for key, value in arrays.items()} for index in range(len(samples))]


def prepare(rgb: NDArray[np.uint8], others: Mapping[str, NDArray[Any]], section: Data) -> Sample:
    """(H,W,3) uint8 RGB and further inputs (H,W) -> the sample of (h,w) that a network of this section gets."""
    from depthray.data.resize import resize_for_inference

    return resize_for_inference(_sample(rgb, others, section.inputs), section)


def restore(maps: Mapping[str, NDArray[np.float32]], size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Maps (h,w) of a network -> (H,W) of the photograph, bilinearly."""
    import torch
    from torch.nn import functional as F

    # (h,w) -> (1,1,H,W); pixel centres are aligned, not corners, as when a prediction is scored.
    full = {
        key: F.interpolate(torch.from_numpy(value)[None, None], size, mode="bilinear") for key, value in maps.items()
    }
    return {key: value[0, 0].numpy() for key, value in full.items()}


def load(path: str | os.PathLike[str], *, device: str | None = None, trust: bool = False) -> Predictor:
    """The predictor of a checkpoint, a run's best checkpoint or an export; on the GPU where there is one.

    An export that is native code is opened only with `trust`: it could do anything.
    """
    chosen = _device(device)
    opened = open_model(locate.resolve(Path(path)), device=chosen, trust=trust, where=Path(path))
    if device and opened.device.type != chosen.type:
        raise UsageError(
            f"--device={device}: {path} is an export that computes on the CPU; give its checkpoint instead"
        )
    return Predictor(opened.network, opened.recipe, device=opened.device, runtime=opened.runtime)


def _device(name: str | None) -> torch.device:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UsageError(f"--device: no device '{name}'; give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device={name}: this machine has {torch.cuda.device_count()} GPUs PyTorch can use")
    try:  # a device can be listed and still fail at its first kernel: an old driver, no free memory
        torch.zeros(1, device=device).tolist()
    except RuntimeError:
        raise UsageError(f"--device={name}: PyTorch cannot compute on it here; give cpu, cuda or cuda:N") from None
    return device


def _sample(rgb: Any, others: Mapping[str, Any], inputs: tuple[str, ...]) -> Sample:
    """The inputs of one image, checked: what is missing, unknown or of another size is named."""
    import numpy as np

    sample: dict[str, Any] = {"image": _colours("image", rgb)}
    missing = [key for key in inputs if key not in ("image", *others)]
    unknown = [key for key in others if key not in inputs]
    if missing or unknown:
        fault = f"needs {', '.join(missing)} too" if missing else f"does not take {', '.join(unknown)}"
        raise UsageError(f"this network {fault}; its inputs are {', '.join(inputs)}")
    for key, values in others.items():
        # The dtypes that a source gives, so that resizing treats a map as it was treated in training.
        kind = np.float32 if key == "sparse" else np.uint8 if key == "mask" else np.int32
        sample[key] = _colours(key, values) if key == "background" else _integer_map(key, values).astype(kind)
        if sample[key].shape[:2] != rgb.shape[:2]:
            size, wanted = sample[key].shape[:2], rgb.shape[:2]
            raise DataError(f"{key} is {size[1]}x{size[0]} but the image is {wanted[1]}x{wanted[0]}; give equal sizes")
    return sample  # type: ignore[return-value]


def _colours(key: str, rgb: Any) -> NDArray[np.uint8]:
    """(H,W,3) uint8 RGB, checked."""
    import numpy as np

    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        what = f"{rgb.dtype} of shape {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise DataError(f"an {key} is a (H,W,3) uint8 RGB array, this is {what}")
    return rgb


def _integer_map(key: str, values: Any) -> NDArray[Any]:
    """(H,W) whole numbers, of `sparse` metres with 0 for what is no distance; checked."""
    import numpy as np

    wanted = "fiu" if key == "sparse" else "iub"
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in wanted:
        what = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{key} is a (H,W) array of {'metres' if key == 'sparse' else 'whole numbers'}, this is {what}")
    if key == "sparse":
        # What a sensor writes where it has no distance: NaN, infinity or a negative number.
        return np.where(np.isfinite(values) & (values > 0), values, 0)
    return values
