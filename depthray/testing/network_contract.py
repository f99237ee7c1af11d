"""What every architecture promises, each promise a function of a network. They leave the network as it was."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from depthray import models
from depthray.batch import Batch
from depthray.testing.batches import some
from depthray.testing.expect import expect

MAPS = ("depth", "mask", "log_sigma", "valid", "monocular")  # of a prediction, of the size of its depth
SIZES = ((64, 64), (33, 47))  # the second is a multiple of no stride


def maps(prediction: Any) -> list[Tensor]:
    """Every tensor of a prediction."""
    single = [prediction[key] for key in MAPS if key in prediction]
    return single + list(prediction.get("pyramid", []))


def equal(one: Any, other: Any) -> bool:
    """Whether two predictions are the same bit for bit, in every map."""
    return one.keys() == other.keys() and all(torch.equal(*pair) for pair in zip(maps(one), maps(other), strict=True))


def apart(one: Any, other: Any) -> float:
    """The largest difference of two predictions over all their maps, as a share of the map's largest value or of 1."""
    expect(one.keys() == other.keys(), f"predicts {sorted(one)} once and {sorted(other)} another time")
    pairs = zip(maps(one), maps(other), strict=True)
    return max(float((left - right).abs().max() / right.abs().max().clamp(min=1)) for left, right in pairs)


def settled(network: nn.Module) -> nn.Module:
    """The network with batch-norm statistics of what it sees: with those of birth, a deep one overflows its head.

    Convolutions that begin at 0, as those do that correct samples, are as after a first step.
    """
    zeros = [part for part in network.modules() if isinstance(part, nn.Conv2d) and not part.weight.any()]
    hooks = [part.register_forward_pre_hook(_nudge) for part in zeros]
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        models.run(network.train(), some(inputs_of(network)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for hook in hooks:
        hook.remove()
    return network


def _nudge(convolution: Any, given: Any) -> None:
    """Weights by which a convolution of zeros gives about 0.1 for what it gets."""
    size = float(given[0].square().mean().sqrt()) * math.sqrt(convolution.weight[0].numel())
    nn.init.normal_(convolution.weight, std=0.1 / size)


def inputs_of(network: Any) -> tuple[str, ...]:
    """The batch keys that a network reads."""
    return tuple(network.inputs)


def full(network: Any, count: int = 2) -> Any:
    """A batch that needs no padding."""
    side = math.ceil(64 / network.stride) * network.stride
    return some(network.inputs, count, side, side)


def says_what_it_needs(network: Any) -> None:
    """`inputs` are keys of a batch, `stride` and `reduction` whole numbers."""
    inputs = getattr(network, "inputs", ())
    unknown = sorted(set(inputs) - set(Batch.__annotations__))
    expect(inputs and not unknown, f"inputs {inputs} are not keys of a batch: {', '.join(Batch.__annotations__)}")
    expect(isinstance(network.stride, int) and network.stride >= 1, f"stride {network.stride!r} is not 1 or more")
    expect(isinstance(getattr(network, "reduction", 1), int), "reduction is not a whole number")


def predicts_maps_of_the_size_of_the_image(network: Any) -> None:
    """Depth (B,1,H,W) float32 in metres, finite and 0 or more, for odd heights and widths too."""
    for size in SIZES:
        _check_maps(network, size)


def _check_maps(network: Any, size: tuple[int, int]) -> None:
    with torch.no_grad():
        prediction: Any = models.run(network, some(network.inputs, 2, *size))
    outputs = set(getattr(network, "outputs", ("depth",)))
    expect(
        set(prediction) == outputs, f"predicts {sorted(prediction)}; outputs (by default depth) says {sorted(outputs)}"
    )
    expect(
        outputs <= {*MAPS, "pyramid"} and {"depth", "mask"} & outputs,
        "predicts neither depth nor a mask",
    )
    wanted = (2, 1, *(math.ceil(side / getattr(network, "reduction", 1)) for side in size))
    for key in {*MAPS} & outputs:
        shape, dtype = tuple(prediction[key].shape), prediction[key].dtype
        expect(shape == wanted, f"{key} of images {size} is {shape}, not {wanted}")
        expect(dtype == torch.float32, f"{key} is {dtype}, not float32")
    if "depth" in outputs:
        depth = prediction["depth"]
        low, high = float(depth.min()), float(depth.max())
        expect(0 <= low < high < math.inf, f"depth is from {low} to {high}: metres are 0 or more, finite, not constant")


def gradient_reaches_every_parameter(network: Any) -> None:
    """Every parameter is trained, but for those whose names match a pattern of `idle`."""
    network = copy.deepcopy(network).train()
    batch = some(network.inputs)
    if "sparse" in batch:
        batch["sparse"][-1] = 0  # the level of a shape that samples scale matters only without them
    prediction = models.run(network, batch)
    total: Any = sum((level * torch.rand(level.shape)).mean() for level in maps(prediction))
    total.backward()
    named = dict(network.named_parameters())
    idle = [key for key, value in named.items() if value.grad is None or not value.grad.any()]
    exempt = getattr(network, "idle", ())
    forgotten = [key for key in idle if not any(re.search(pattern, key) for pattern in exempt)]
    expect(
        not forgotten, f"no gradient reaches {', '.join(forgotten[:3])} ({len(forgotten)} of {len(named)} parameters)"
    )
    wrong = [pattern for pattern in exempt if not any(re.search(pattern, key) for key in idle)]
    expect(not wrong, f"idle names {wrong}, which are trained")
    broken = [key for key, value in named.items() if value.grad is not None and not value.grad.isfinite().all()]
    expect(not broken, f"the gradient of {', '.join(broken[:3])} is not finite")


def any_colours_give_a_finite_answer(network: Any) -> None:
    """Black, white and noise."""
    batch = some(network.inputs, 3)
    colours = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64), torch.rand(3, 64, 64)])
    batch |= {key: colours for key in ("image", "background") if key in network.inputs}
    with torch.no_grad():
        finite = all(level.isfinite().all() for level in maps(models.run(network, batch)))
    expect(finite, "a black, a white or a noisy image gives a prediction that is not finite")


def weights_survive_a_file(network: Any) -> None:
    """What is saved and loaded predicts the same: all that matters is in `state_dict`."""
    trained, other = copy.deepcopy(network), copy.deepcopy(network).eval()
    with torch.no_grad():
        models.run(trained.train(), some(network.inputs))
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    state = {key: value.contiguous().clone() for key, value in trained.state_dict().items()}
    content = safetensors.torch.save(state)
    batch = some(network.inputs)
    with torch.no_grad():
        before = models.run(other, batch)
        other.load_state_dict(safetensors.torch.load(content))
        after, wanted = models.run(other, batch), models.run(trained.eval(), batch)
    expect(
        equal(after, wanted), "predicts something else after its weights were saved and loaded: is all in state_dict?"
    )
    unmoved = any(torch.equal(*pair) for pair in zip(maps(after), maps(before), strict=True))
    expect(not unmoved, "predicts the same with other weights")


def images_of_a_batch_do_not_touch_each_other(network: Any) -> None:
    """In `eval` mode."""
    network = copy.deepcopy(network).eval()
    batch = some(network.inputs)
    with torch.no_grad():
        together = models.run(network, batch)
        each: list[Any] = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(2)]
        alone = [models.run(network, one) for one in each]
    expect(apart(joined(alone), together) < 1e-4, "the prediction of an image depends on the others of its batch")


def joined(predictions: list[Any]) -> Any:
    """Predictions of a batch of one each -> the prediction of the batch."""
    levels = zip(*(prediction.get("pyramid", []) for prediction in predictions), strict=True)
    single = {key: torch.cat([each[key] for each in predictions]) for key in predictions[0] if key != "pyramid"}
    return single | ({"pyramid": [torch.cat(level) for level in levels]} if "pyramid" in predictions[0] else {})


def the_batch_is_left_as_it_was(network: Any) -> None:
    """Losses and metrics read it afterwards."""
    batch = some(network.inputs)
    before = {key: value.clone() for key, value in batch.items()}
    models.run(copy.deepcopy(network).train(), batch)
    changed = [key for key in before if not torch.equal(batch[key], before[key])]
    expect(not changed, f"changes '{', '.join(changed)}' of the batch in place")


def depth_is_float32_under_autocast(network: Any) -> None:
    """In bfloat16, 2 to 4 m come in 128 steps."""
    network = copy.deepcopy(network).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction: Any = models.run(network, some(network.inputs, 1, 32, 32))  # small, as CPUs emulate bfloat16
    dtypes = {level.dtype for level in maps(prediction)}
    expect(dtypes == {torch.float32}, f"predicts {dtypes} under autocast; end with .float() before metres are computed")
    if "depth" in prediction:
        depth = prediction["depth"][prediction["depth"] > 0]
        fine = float((depth != depth.bfloat16()).float().mean())
        expect(fine > 0.5, "depth has the steps of bfloat16 under autocast; call .float() before metres are computed")


def a_copy_predicts_the_same_and_can_be_pickled(network: Any) -> None:
    """Weight averages are copies, and processes are sent networks."""
    network = copy.deepcopy(network).eval()
    batch = some(network.inputs)
    ForkingPickler.dumps(network)
    with torch.no_grad():
        expect(
            equal(models.run(copy.deepcopy(network), batch), models.run(network, batch)), "a copy predicts otherwise"
        )


def exports(network: Any) -> None:
    """By torch.export, which `depthray export` traces networks with."""
    network = copy.deepcopy(network).eval()
    batch = full(network)
    with torch.no_grad():
        exported = torch.export.export(network, (batch,), strict=False).module()
        expect(apart(exported(batch), network(batch)) < 1e-4, "predicts something else when it is exported")


CHECKS: tuple[Callable[[Any], None], ...] = (
    says_what_it_needs,
    predicts_maps_of_the_size_of_the_image,
    gradient_reaches_every_parameter,
    any_colours_give_a_finite_answer,
    weights_survive_a_file,
    images_of_a_batch_do_not_touch_each_other,
    the_batch_is_left_as_it_was,
    depth_is_float32_under_autocast,
    a_copy_predicts_the_same_and_can_be_pickled,
    exports,
)
