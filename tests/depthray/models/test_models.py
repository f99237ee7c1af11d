"""What every architecture promises; a new one in depthray/models is covered unasked."""

import copy
import inspect
import itertools
import math
import re
from importlib import import_module
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.nn.functional as F
from inputs import some
from safetensors.torch import load_file, save_file
from torch import nn

from depthray import models
from depthray.batch import Batch
from depthray.config.sections import Model

LIGHT = 20_000_000  # parameters; heavier variants are the same code at greater width
ALL_INPUTS = ("sparse", "image", "semantics", "instances", "background", "mask")
TRUTH = 1 + 4 * torch.linspace(0, 1, 64).expand(2, 1, 64, 64)  # metres


def signature(name):
    return inspect.signature(import_module(f"depthray.models.{name}").build).parameters


def make(name, options, inputs=None):
    torch.manual_seed(0)
    return models.build_model(Model(name=name, **options), inputs or signature(name)["inputs"].default)


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
CASES = [case for parameters, case in WEIGHTS if parameters < LIGHT or case in COMPACT]


def maps(prediction):
    """Every tensor of a prediction."""
    single = [prediction[key] for key in ("depth", "mask") if key in prediction]
    return single + prediction.get("pyramid", [])


def equal(one, other):
    """Whether two predictions are the same bit for bit, in every map."""
    return one.keys() == other.keys() and all(torch.equal(*pair) for pair in zip(maps(one), maps(other), strict=True))


def apart(one, other):
    """The largest difference of two predictions over all their maps, as a share of the map's largest value or of 1."""
    assert one.keys() == other.keys()
    pairs = zip(maps(one), maps(other), strict=True)
    return max(((left - right).abs().max() / right.abs().max().clamp(min=1)).item() for left, right in pairs)


def joined(predictions):
    """Predictions of a batch of one each -> the prediction of the batch."""
    levels = zip(*(prediction.get("pyramid", []) for prediction in predictions), strict=True)
    single = {key: torch.cat([each[key] for each in predictions]) for key in predictions[0] if key != "pyramid"}
    return single | ({"pyramid": [torch.cat(level) for level in levels]} if "pyramid" in predictions[0] else {})


def error(prediction):
    """L1 of depth, cross-entropy of the mask, against a ramp."""
    total = torch.zeros(())
    if "depth" in prediction:
        total = total + (prediction["depth"] - F.interpolate(TRUTH, prediction["depth"].shape[-2:])).abs().mean()
    if "mask" in prediction:
        truth = F.interpolate((TRUTH > 3).float(), prediction["mask"].shape[-2:])
        total = total + F.binary_cross_entropy_with_logits(prediction["mask"], truth)
    return total


def full(model, count=2):
    """A batch that needs no padding."""
    side = math.ceil(64 / model.stride) * model.stride
    return some(model.inputs, count, side, side)


def settled(model):
    """The network with batch-norm statistics of what it sees: with those of birth, a deep one overflows its head."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        models.run(model.train(), some(model.inputs))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model


@pytest.fixture(scope="module", params=CASES, ids=str)
def built(request):
    return settled(make(*request.param))


@pytest.fixture
def model(built):
    return copy.deepcopy(built).eval()


@pytest.fixture(scope="module", params=COMPACT, ids=str)
def compact(request):
    yield settled(make(*request.param)).eval()
    torch._dynamo.reset()


def test_says_what_it_needs(model):
    assert model.inputs and set(model.inputs) <= set(Batch.__annotations__)
    assert isinstance(model.stride, int) and model.stride >= 1
    assert isinstance(getattr(model, "reduction", 1), int)


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_maps_have_the_promised_size_and_depth_is_metric(model, size):
    with torch.no_grad():
        prediction = models.run(model, some(model.inputs, 2, *size))
    assert set(prediction) <= {"depth", "pyramid", "mask"} and {"depth", "mask"} & set(prediction)
    assert set(prediction) == set(getattr(model, "outputs", ("depth",)))
    for key in {"depth", "mask"} & set(prediction):
        assert prediction[key].shape == (2, 1, *(math.ceil(side / getattr(model, "reduction", 1)) for side in size))
        assert prediction[key].dtype == torch.float32
    if "depth" in prediction:
        assert 0 <= prediction["depth"].min() < prediction["depth"].max() < math.inf


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


def test_gradient_reaches_every_parameter(model):
    prediction = models.run(model.train(), some(model.inputs))
    sum((level * torch.rand(level.shape)).mean() for level in maps(prediction)).backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    exempt = getattr(model, "idle", ())
    assert [key for key in idle if not any(re.search(pattern, key) for pattern in exempt)] == []
    assert [pattern for pattern in exempt if not any(re.search(pattern, key) for key in idle)] == []
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


def test_any_colours_give_a_finite_answer(model):
    batch = some(model.inputs, 3)
    colours = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64), torch.rand(3, 64, 64)])
    batch |= {key: colours for key in ("image", "background") if key in model.inputs}
    with torch.no_grad():
        assert all(level.isfinite().all() for level in maps(models.run(model, batch)))


def test_weights_survive_a_file(compact, tmp_path):
    model, other = copy.deepcopy(compact), copy.deepcopy(compact)
    with torch.no_grad():
        models.run(model.train(), some(model.inputs))
        [parameter.mul_(1.1) for parameter in model.parameters()]
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    batch = some(model.inputs)
    with torch.no_grad():
        before = models.run(other, batch)
        other.load_state_dict(load_file(tmp_path / "w.safetensors"))
        after, wanted = models.run(other, batch), models.run(model.eval(), batch)
    assert equal(after, wanted)
    assert not any(torch.equal(*pair) for pair in zip(maps(after), maps(before), strict=True))


def test_images_of_a_batch_do_not_touch_each_other(model):
    batch = some(model.inputs)
    with torch.no_grad():
        together = models.run(model, batch)
        alone = [models.run(model, {key: value[i : i + 1] for key, value in batch.items()}) for i in range(2)]
    assert apart(joined(alone), together) < 1e-4


def test_the_batch_is_left_as_it_was(model):
    batch = some(model.inputs)
    before = {key: value.clone() for key, value in batch.items()}
    models.run(model.train(), batch)
    assert all(torch.equal(batch[key], before[key]) for key in before)


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


def test_depth_is_float32_under_autocast(model):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction = models.run(model, some(model.inputs, 1, 32, 32))  # small, as CPUs emulate bfloat16
    assert {level.dtype for level in maps(prediction)} == {torch.float32}
    if "depth" in prediction:  # in bfloat16, 2 to 4 m come in 128 steps
        depth = prediction["depth"][prediction["depth"] > 0]
        assert (depth != depth.bfloat16()).float().mean() > 0.5


def test_a_copy_predicts_the_same_and_can_be_pickled(compact):
    batch = some(compact.inputs)
    ForkingPickler.dumps(compact)
    with torch.no_grad():
        assert equal(models.run(copy.deepcopy(compact), batch), models.run(compact, batch))


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


def test_compiles_as_one_graph(compact):
    batch = full(compact)
    compiled = torch.compile(compact, backend="eager", fullgraph=True)  # what backends lower, test_exports traces
    with torch.no_grad():
        assert apart(compiled(batch), compact(batch)) < 1e-4


def test_exports(compact):
    batch = full(compact)
    with torch.no_grad():
        exported = torch.export.export(compact, (batch,), strict=False).module()
        assert apart(exported(batch), compact(batch)) < 1e-4


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_named_variants_are_options_a_recipe_may_have(name, options):
    models.check(Model(name=name, **options), where="VARIANTS")
