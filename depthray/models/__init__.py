"""Architectures: one file each, found by its name. `build(**options)` in it makes the network.

One's own is a module or a file elsewhere with the same function, see `depthray.config.own_code`.

A network takes a batch and returns a prediction; it states `inputs`, the batch keys it reads, and `stride`, of which
height and width must be multiples. `run` pads for that, so callers never do. One whose prediction is not depth alone
states its maps as `outputs`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from depthray.config import own_code
from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:  # torch takes seconds to import, and `names` and `check` do not need it
    from torch import Tensor, nn

    from depthray.batch import Batch, Prediction
    from depthray.config.sections import Model, Uncertainty
    from depthray.models.layers.depth_head import Completion

LACKS = {
    "sparse_fusion": "spreads no samples of depth",
    "fill": "spreads no samples of depth",
    "refine": "has no depth that can be refined",
    "uncertainty": "predicts no depth",
    "valid_mask": "predicts no depth",
}  # key of the model section that networks with a depth head take: what one without it lacks
INTRINSICS = "intrinsics"  # the input that is a camera of each image and not a map


def names() -> list[str]:
    """The architectures there are, by the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def check(section: Model, *, where: str) -> None:
    """Refuse an unknown architecture, an unknown option or an unfit value, naming its key."""
    if section.name not in names():
        if not own_code.is_of(own_code.MODEL, section.name):
            known = [*names(), *own_code.entry_points(own_code.MODEL)]
            raise UsageError(
                f"{where}: model.name: no architecture '{section.name}'{did_you_mean(section.name, known)}"
            )
        builder(section.name, where=where)
    # Only where there are options: their names and types are in the module, which imports torch.
    if section.options or depth_head_options(section):
        _check_options(section, where=where)


def depth_head_options(section: Model) -> dict[str, Any]:
    """The keys of a model section that only networks with a depth head take, and whose value is not the default."""
    defaults = type(section).model_fields
    return {key: value for key in LACKS if (value := getattr(section, key)) != defaults[key].default}


def build_model(section: Model, inputs: tuple[str, ...]) -> nn.Module:
    """The network of a recipe's model section with random weights; `depthray.weights.start` loads `model.weights`."""
    build = builder(section.name)
    inputs = all_inputs(section, inputs)
    options, seen = dict(section.options), _built_for(section, inputs)
    if "completion" in inspect.signature(build).parameters:
        options["completion"] = _completion(section)
    if section.name in names():
        network: Any = build(**options, inputs=seen)
    else:
        with own_code.one_line(f"model.name={section.name}: build fails", own=True):
            network = build(**options, inputs=seen)
        _check_own(network, section.name)
    if seen != inputs:
        network.inputs = inputs
        network.outputs = (*getattr(network, "outputs", ("depth",)), "monocular")
    network.zero_padded = zero_padded(section, inputs)
    network.uncertainty = section.uncertainty
    if section.auxiliary_maps:
        network.outputs = (*getattr(network, "outputs", ("depth",)), *section.auxiliary_maps.values())
    return network  # type: ignore[no-any-return]


def all_inputs(section: Model, inputs: Sequence[str]) -> tuple[str, ...]:
    """The keys of a batch that the network of a model section gets, of whose data section these are `inputs`."""
    return (*inputs, INTRINSICS) if section.rays else tuple(inputs)


def _built_for(section: Model, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs that an architecture is built for: with late fusion samples are its depth head's alone."""
    if section.sparse_fusion == "early":
        return inputs
    seen = tuple(key for key in inputs if key != "sparse")
    if "sparse" not in inputs or not maps_of(seen):
        raise UsageError("model.sparse_fusion=late: give data.inputs of which sparse is one, such as [image,sparse]")
    return seen


def maps_of(inputs: Sequence[str]) -> tuple[str, ...]:
    """The inputs of a network that are maps (B,C,H,W), of whose size its prediction is."""
    return tuple(key for key in inputs if key != INTRINSICS)


def zero_padded(section: Model, inputs: Sequence[str]) -> tuple[str, ...]:
    """The inputs that `run` pads by zeros: beyond the edge are no samples, of which depth would be spread back."""
    return ("sparse",) if "sparse" in inputs and section.start == "samples" else ()


def _completion(section: Model) -> Completion:
    from depthray.models.layers.completion.propagation import PropagationOptions
    from depthray.models.layers.depth_head import Completion

    refine = None
    if section.refine != "none":
        refine = PropagationOptions(section.refine, section.refine_steps, section.refine_kernel, section.refine_samples)
    keys = ("start", "uncertainty", "valid_mask", "fill", "sparse_fusion")
    return Completion(refine=refine, **{key: getattr(section, key) for key in keys})


def builder(name: str, *, where: str = "recipe") -> Callable[..., nn.Module]:
    """The build function of an architecture; of one's own it is imported, where that is allowed (see `own_code`)."""
    if name in names():
        ours: Callable[..., nn.Module] = import_module(f"depthray.models.{name}").build
        return ours
    build: Callable[..., nn.Module] = own_code.resolve(own_code.MODEL, name, where=where)
    form = "def build(*, inputs=('image',)), with a default for every option"
    own_code.check_call(build, label=f"{where}: model.name={name}", form=form, inputs=("image",))
    return build


def option_parameters(section: Model, *, where: str) -> dict[str, inspect.Parameter]:
    """The options of an architecture with their types."""
    build = builder(section.name, where=where)
    try:
        # eval_str, since annotations are text otherwise (from __future__ import annotations).
        parameters = inspect.signature(build, eval_str=True).parameters
    except NameError as error:  # of one's own, imported for type checkers only
        raise UsageError(f"{where}: model.name={section.name}: an annotation of build: {error}") from None
    # Those are data.inputs, and the keys of the model section that every network with a depth head takes.
    return {key: parameter for key, parameter in parameters.items() if key not in ("inputs", "completion")}


def run(model: nn.Module, batch: Batch) -> Prediction:
    """A batch of any size -> the prediction at that size; inputs are padded at the right and bottom.

    By repetition of the last row and column, those of `zero_padded` by zeros.
    """
    network: Any = model
    while not hasattr(network, "stride"):  # DistributedDataParallel and AveragedModel hold the network as `module`
        network = network.module
    values: dict[str, Any] = dict(batch)
    for key in network.inputs:
        if key not in values:
            asked = "model.rays" if key == INTRINSICS else "data.inputs"
            raise DataError(f"the network needs '{key}' ({asked}), and the data set has none; use data that has it")
    maps = maps_of(network.inputs)
    height, width = values[maps[0]].shape[-2:]
    padded = tuple(math.ceil(side / network.stride) * network.stride for side in (height, width))
    if padded == (height, width):  # the usual case, without copies
        prediction: Prediction = model(batch)
        return prediction
    # The inputs alone: the truth stays as it is, and the prediction is cut back to it.
    zeros = getattr(network, "zero_padded", ())
    values.update({key: (_pad_zeros if key in zeros else _pad)(values[key], padded) for key in maps})
    return _crop(model(values), share=(height / padded[0], width / padded[1]))


def uncertainty_of(model: nn.Module) -> Uncertainty:
    """The distribution that a network predicts of ln depth; "none" where it predicts depth alone."""
    network: Any = model
    while not hasattr(network, "stride"):  # as `run` finds it
        network = network.module
    family: Uncertainty = getattr(network, "uncertainty", "none")
    return family


def check_ids(model: nn.Module, batch: Batch) -> None:
    """Refuse class ids beyond the network's classes. Call it with a batch on the CPU, where reading values is cheap."""
    if "semantics" not in batch:  # asked first: it is called at every step
        return
    modules: list[Any] = list(model.modules())
    counts = [module.num_classes for module in modules if hasattr(module, "num_classes")]
    if not counts:
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


def _pad_zeros(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) with zeros beyond the last row and column"""
    from torch.nn import functional

    return functional.pad(values, (0, size[1] - values.shape[-1], 0, size[0] - values.shape[-2]))


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


def _check_own(network: Any, name: str) -> None:
    """Raise UsageError where what a build function returned is no network that `run` can call."""
    from torch import nn

    inputs, stride = getattr(network, "inputs", None), getattr(network, "stride", None)
    if not isinstance(network, nn.Module):
        raise UsageError(f"model.name={name}: build returned {type(network).__name__}, not a torch.nn.Module")
    if not isinstance(inputs, tuple) or not isinstance(stride, int):
        raise UsageError(
            f"model.name={name}: the network needs self.inputs, the tuple that build was given, and stride, a whole "
            "number of which height and width are multiples (1 for any size)"
        )


def _check_options(section: Model, *, where: str) -> None:
    parameters = option_parameters(section, where=where)
    has_head = "completion" in inspect.signature(builder(section.name, where=where)).parameters
    for key, value in depth_head_options(section).items():
        # One's own may predict further maps in its own way.
        if not has_head and (key not in section.auxiliary_maps or section.name in names()):
            raise UsageError(f"{where}: model.{key}={str(value).lower()}: {section.name} {LACKS[key]}")
    for key, value in section.options.items():
        if key not in parameters:
            raise UsageError(f"{where}: unknown key 'model.{key}'{did_you_mean(key, [*parameters, 'name'])}")
        try:
            # Strict: else pydantic would take 1 for true and '10' for 10, which YAML keeps apart.
            kind = parameters[key].annotation
            TypeAdapter(Any if kind is inspect.Parameter.empty else kind).validate_python(value, strict=True)
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
