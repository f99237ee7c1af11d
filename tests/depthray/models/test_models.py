"""What every architecture promises; a new one in depthray/models is covered unasked.

The promises that one's own have to keep as well are `depthray.testing.network_contract`.
"""

import copy
import inspect
import itertools
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from inputs import some
from shallow_networks import build_shallow

from depthray import models
from depthray.config.sections import Model
from depthray.testing import network_contract as contract
from depthray.testing.network_contract import apart, equal, full, settled

LIGHT = 20_000_000  # parameters; heavier variants are the same code at greater width
ALL_INPUTS = ("sparse", "image", "semantics", "instances", "background", "mask", "intrinsics")
TRUTH = 1 + 4 * torch.linspace(0, 1, 64).expand(2, 1, 64, 64)  # metres


def signature(name):
    return inspect.signature(import_module(f"depthray.models.{name}").build).parameters


def make(name, options, inputs=None, build=models.build_model):
    torch.manual_seed(0)
    natural = signature(name)["inputs"].default
    if "refine" in options and inputs is None:  # what refinement is mostly for
        inputs = tuple(dict.fromkeys((*natural, "sparse")))
    return build(Model(name=name, **options), inputs or natural)


def weight(name, options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(name, options).parameters())


def variants(name):
    return list(getattr(import_module(f"depthray.models.{name}"), "VARIANTS", {}).values())


VARIANTS = [(name, options) for name in models.names() for options in variants(name)]
WEIGHTS = [(weight(*case), case) for case in [*((name, {}) for name in models.names()), *VARIANTS]]
HEAVY = [case for parameters, case in WEIGHTS if not case[1] and parameters > LIGHT]
# One of each architecture for what takes long: as it comes, or its smallest variant.
COMPACT = [
    min(
        ((bool(case[1]) or parameters > LIGHT, parameters, case) for parameters, case in WEIGHTS if case[0] == name),
        key=lambda each: each[:2],
    )[2]
    for name in models.names()
]
# Every architecture that completes depth: late, with the one kind of refinement, and one of them early with the other.
COMPLETE = [case for case in COMPACT if "completion" in signature(case[0])]
REFINED = [
    *((name, options | {"refine": "cspn", "sparse_fusion": "late"}) for name, options in COMPLETE),
    *((name, options | {"refine": "nlspn"}) for name, options in COMPLETE if name == "unet"),
]
AUXILIARY = [(name, options | {"uncertainty": "laplace", "valid_mask": True}) for name, options in COMPLETE]
CASES = [*(case for parameters, case in WEIGHTS if parameters < LIGHT or case in COMPACT), *REFINED]


def error(prediction):
    """L1 of depth, cross-entropy of the mask, against a ramp."""
    total = torch.zeros(())
    if "depth" in prediction:
        total = total + (prediction["depth"] - F.interpolate(TRUTH, prediction["depth"].shape[-2:])).abs().mean()
    if "mask" in prediction:
        truth = F.interpolate((TRUTH > 3).float(), prediction["mask"].shape[-2:])
        total = total + F.binary_cross_entropy_with_logits(prediction["mask"], truth)
    return total


@pytest.fixture(scope="module", params=CASES, ids=str)
def built(request):
    return settled(make(*request.param))


@pytest.fixture
def model(built):
    return copy.deepcopy(built).eval()


@pytest.fixture(scope="module", params=COMPACT, ids=str)
def compact(request):
    return settled(make(*request.param)).eval()


# What takes long, on one of each architecture: as it comes, or its smallest variant.
LONG = (contract.weights_survive_a_file, contract.a_copy_predicts_the_same_and_can_be_pickled)
# Exports are not among them: tests/depthray/exporting/test_exported_networks.py traces every variant for all runtimes.
SHORT = [check for check in contract.CHECKS if check not in (*LONG, contract.exports)]


@pytest.mark.parametrize("check", SHORT, ids=lambda check: check.__name__)
def test_keeps_the_contract(model, check):
    check(model)


@pytest.mark.parametrize("check", LONG, ids=lambda check: check.__name__)
def test_keeps_what_takes_long_of_the_contract(compact, check):
    check(compact)


@pytest.mark.parametrize(("name", "options"), COMPACT, ids=str)
@pytest.mark.parametrize("max_depth", [10.0, 80.0])
def test_no_depth_is_beyond_max_depth(name, options, max_depth):
    bounded = {"max_depth": max_depth} if "max_depth" in signature(name) else {}
    model = settled(make(name, options | bounded)).eval()
    with torch.no_grad():
        depth = models.run(model, some(model.inputs)).get("depth", torch.ones(1))
    assert 0 <= depth.min() <= depth.max() <= max_depth


def test_pyramid_is_coarser_depth_finest_first(model):
    with torch.no_grad():
        prediction = models.run(model, some(model.inputs))
    levels = [prediction["depth"], *prediction.get("pyramid", [])] if "depth" in prediction else []
    assert "depth" in prediction or "pyramid" not in prediction
    assert all(level.dtype == torch.float32 and level.isfinite().all() for level in levels)
    assert all(coarse.shape[-1] < fine.shape[-1] for fine, coarse in itertools.pairwise(levels))


def test_one_step_lowers_the_loss(model):
    assert_one_step_lowers_the_loss(model)


def assert_one_step_lowers_the_loss(model):
    batch = some(model.inputs)
    torch.manual_seed(0)
    before = error(models.run(model.train(), batch))
    before.backward()
    slope = sum(value.grad.square().sum() for value in model.parameters() if value.grad is not None)
    torch.optim.SGD(model.parameters(), lr=0.01 * before.item() / slope.item()).step()  # a line would fall by 1 %
    torch.manual_seed(0)  # the same dropout
    after = error(models.run(model, batch))
    assert 0.98 * before < after < 0.998 * before


def test_untrained_answer_is_sensible(model):
    assert_untrained_answer_is_sensible(model)


def assert_untrained_answer_is_sensible(model):
    with torch.no_grad():
        prediction = models.run(model.train(), some(model.inputs))
    if "depth" in prediction:
        assert 1.0 < prediction["depth"].median() < 5.0
    if "mask" in prediction:
        assert 0.02 < prediction["mask"].sigmoid().median() < 0.98


@pytest.mark.parametrize(("name", "options"), HEAVY, ids=str)
def test_a_deep_network_begins_as_a_light_one_does(name, options):
    """Scales may grow with each layer; all else of such a network is the code of its lighter variants."""
    model = settled(make(name, options))
    assert_untrained_answer_is_sensible(model)
    assert_one_step_lowers_the_loss(model)


@pytest.mark.parametrize("more", [(), ALL_INPUTS], ids=["natural", "all"])
@pytest.mark.parametrize(("name", "options"), COMPACT, ids=str)
def test_every_input_is_used(name, options, more):
    natural = signature(name)["inputs"].default
    model = make(name, options, natural + tuple(key for key in more if key not in natural)).eval()
    batch, other = some(model.inputs), some(model.inputs, 3)
    with torch.no_grad():
        [parameter.add_(torch.randn_like(parameter), alpha=0.01) for parameter in model.parameters()]
        before = models.run(model, batch)
        for key in model.inputs:
            assert not equal(models.run(model, batch | {key: other[key][1:]}), before), key


@pytest.mark.parametrize("case", AUXILIARY, ids=str)
def test_maps_along_with_depth_are_as_large_as_it_and_trained(case):
    model = make(*case).eval()
    prediction = models.run(model, some(model.inputs, 1))
    assert {*prediction} == {*model.outputs} >= {"log_sigma", "valid"}
    for key, head in (("log_sigma", model.metres.log_sigma), ("valid", model.metres.valid_mask)):
        assert prediction[key].shape == prediction["depth"].shape and prediction[key].dtype == torch.float32
        last = head.layers[-1]
        (slope,) = torch.autograd.grad(prediction[key].mean(), last.weight, retain_graph=True)
        assert slope.any() and last.weight.requires_grad


COMPILED = [
    pytest.param(*case, marks=() if case[0] == "depthnet" or case in REFINED[-1:] else pytest.mark.thorough)
    for case in [*COMPACT, *REFINED[-2:]]
]


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
def test_compiles_as_one_graph(name, options):
    network = settled(make(name, options, build=build_shallow)).eval()
    batch = full(network)
    compiled = torch.compile(network, backend="eager", fullgraph=True)  # what backends lower, exports trace
    with torch.no_grad():
        assert apart(compiled(batch), network(batch)) < 1e-4
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_named_variants_are_options_a_recipe_may_have(name, options):
    models.check(Model(name=name, **options), where="VARIANTS")
