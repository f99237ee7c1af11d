"""Architectures: one file each, found by its name. `build(**options)` in it makes the network.

A network takes a batch and returns a prediction; it states `inputs`, the batch keys it reads, and `stride`, of which
height and width must be multiples. `run` pads for that, so callers never do. One whose prediction is not depth alone
states its maps as `outputs`.
"""

from __future__ import annotations

import inspect
import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:  # torch takes seconds to import, and `names` and `check` do not need it
    from torch import Tensor, nn

    from depthray.batch import Batch, Prediction
    from depthray.config.sections import Model


def names() -> list[str]:
    """The architectures there are, by the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def check(section: Model, *, where: str) -> None:
    """Refuse an unknown architecture, an unknown option or an unfit value, naming its key."""
    if section.name not in names():
        raise UsageError(f"{where}: model.name: no architecture '{section.name}'{did_you_mean(section.name, names())}")
    # Only where there are options: their names and types are in the module, which imports torch.
    if section.options:
        _check_options(section, where=where)


def build_model(section: Model, inputs: tuple[str, ...]) -> nn.Module:
    """The network of a recipe's model section with random weights; `depthray.weights.start` loads `model.weights`."""
    build = import_module(f"depthray.models.{section.name}").build
    network: nn.Module = build(**section.options, inputs=tuple(inputs))
    return network


def run(model: nn.Module, batch: Batch) -> Prediction:
    """A batch of any size -> the prediction at that size; inputs are padded at the right and bottom by repetition."""
    network: Any = model
    while not hasattr(network, "stride"):  # DistributedDataParallel and AveragedModel hold the network as `module`
        network = network.module
    values: dict[str, Any] = dict(batch)
    for key in network.inputs:
        if key not in values:
            raise DataError(f"the network needs '{key}' (data.inputs), and the data set has none; use data that has it")
    height, width = values[network.inputs[0]].shape[-2:]
    padded = tuple(math.ceil(side / network.stride) * network.stride for side in (height, width))
    if padded == (height, width):  # the usual case, without copies
        prediction: Prediction = model(batch)
        return prediction
    # The inputs alone: the truth stays as it is, and the prediction is cut back to it.
    values.update({key: _pad(values[key], padded) for key in network.inputs})
    return _crop(model(values), share=(height / padded[0], width / padded[1]))


def check_ids(model: nn.Module, batch: Batch) -> None:
    """Refuse class ids beyond the network's classes. Call it with a batch on the CPU, where reading values is cheap."""
    modules: list[Any] = list(model.modules())
    counts = [module.num_classes for module in modules if hasattr(module, "num_classes")]
    if not counts or "semantics" not in batch:
        return
    largest = batch["semantics"].amax(dim=(1, 2, 3)).tolist()  # (B,1,H,W) -> one id an image
    # Unchecked, such an id would silently be read as unknown, or as the class that its lowest bits are.
    for index, number in enumerate(largest):
        if number >= min(counts):
            where = f"sample '{batch['id'][index]}'" if "id" in batch else "semantics"
            raise DataError(
                f"{where}: class id {number} is out of range: this network has {min(counts)} classes "
                f"(0 to {min(counts) - 1}); set model.classes={number + 1} if it has that option, give data of fewer "
                "classes, or leave semantics out of data.inputs"
            )


def _pad(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) repeating the last row and column; by index, as F.pad cannot repeat integers."""
    import torch

    for axis, side in zip((-2, -1), size, strict=True):
        index = torch.arange(side, device=values.device).clamp_(max=values.shape[axis] - 1)
        values = values.index_select(axis, index)
    return values


def _crop(prediction: Prediction, *, share: tuple[float, float]) -> Prediction:
    """Cut every map (B,1,H,W) back to the share that came from the input."""

    def cut(values: Tensor) -> Tensor:
        # Rounded first: 23 / 42 * 42 is a little above 23 in floats, which ceil would make 24.
        # Shares, not pixels: a map may be coarser than the input.
        height, width = (math.ceil(round(part * side, 6)) for part, side in zip(share, values.shape[-2:], strict=True))
        return values[..., :height, :width]

    cropped: Any = {
        key: [cut(level) for level in value] if isinstance(value, list) else cut(value)  # type: ignore[arg-type]
        for key, value in prediction.items()
    }
    return cropped  # type: ignore[no-any-return]


def _check_options(section: Model, *, where: str) -> None:
    module = import_module(f"depthray.models.{section.name}")
    # eval_str, since annotations are text otherwise (from __future__ import annotations).
    parameters = dict(inspect.signature(module.build, eval_str=True).parameters)
    del parameters["inputs"]  # these are data.inputs
    for key, value in section.options.items():
        if key not in parameters:
            raise UsageError(f"{where}: unknown key 'model.{key}'{did_you_mean(key, [*parameters, 'name'])}")
        try:
            # Strict: else pydantic would take 1 for true and '10' for 10, which YAML keeps apart.
            TypeAdapter(parameters[key].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            raise UsageError(f"{where}: model.{key}={value!r}: {_fault(error, value)}") from None


def _fault(error: ValidationError, value: Any) -> str:
    fault = error.errors()[0]
    near = ""
    if fault["type"] == "literal_error" and isinstance(value, str):
        # pydantic names the choices only as text: "'a', 'b' or 'c'".
        choices = fault["ctx"]["expected"].replace(" or ", ",").split(",")
        near = did_you_mean(value, [choice.strip("' ") for choice in choices])
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}{near if 'did you mean' in near else ''}"
