"""Adan against its formulas written out in NumPy, and its state through a file."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from depthray.config.sections import Optim
from depthray.runtimes.precision import Precision
from depthray.training.adan import Adan
from depthray.training.optim import build_optimiser, set_learning_rate

B1, B2, B3, EPS = 0.98, 0.92, 0.99, 1e-8
Numbers = NDArray[np.float64]


def written_out(start: Numbers, gradients: list[Numbers], *, rates: list[float], decay: float) -> Numbers:
    """(N) weights after one step for each (N) gradient, one formula a line."""
    p, m, v, n, before = start.copy(), np.zeros_like(start), np.zeros_like(start), np.zeros_like(start), gradients[0]
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * (g - before)
        n = B3 * n + (1 - B3) * (g + B2 * (g - before)) ** 2
        step = (m / (1 - B1**t) + B2 * v / (1 - B2**t)) / (np.sqrt(n) / math.sqrt(1 - B3**t) + EPS)
        p = (p - lr * step) / (1 + lr * decay)
        before = g
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_the_formulas(decay: float) -> None:
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=7), [random.normal(size=7) * 10.0**k for k in (0, -3, 2, 0, 1)]
    rates = [0.1, 0.2, 0.05, 0.3, 0.1]
    weight = nn.Parameter(torch.tensor(start))
    optimiser = Adan([weight], lr=1.0, weight_decay=decay)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient)
        optimiser.step()
    expected = written_out(start, gradients, rates=rates, decay=decay)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_first_step_is_a_step_of_the_rate_against_the_sign() -> None:
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([5.0, -0.01, 0.0])
    Adan([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.1, 0.1, 0.0]), atol=1e-6, rtol=0)


def test_a_recipe_gives_it_groups_with_their_own_rate_and_decay() -> None:
    net = nn.ModuleDict({"encoder": nn.Conv2d(1, 2, 3), "head": nn.Conv2d(2, 1, 3)})
    section = Optim(name="adan", lr=0.01, encoder_lr=0.1, weight_decay=0.5)
    optimiser = build_optimiser(net, section)
    set_learning_rate(optimiser, 0.02)
    assert isinstance(optimiser, Adan)
    found = {(round(group["lr"], 6), group["weight_decay"]) for group in optimiser.param_groups}
    assert found == {(0.002, 0.5), (0.002, 0.0), (0.02, 0.5), (0.02, 0.0)}


def drive(net: nn.Module, optimiser: torch.optim.Optimizer, *, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def test_it_resumes_from_a_file_bit_for_bit(tmp_path: Path) -> None:
    net, section = nn.Conv2d(3, 4, 3), Optim(name="adan", lr=0.05, weight_decay=0.1)
    optimiser = build_optimiser(net, section)
    drive(net, optimiser, first=0, last=3)
    torch.save(optimiser.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(net)
    resumed = build_optimiser(other, section)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    drive(net, optimiser, first=3, last=6)
    drive(other, resumed, first=3, last=6)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_memory_layout_does_not_matter() -> None:
    net = nn.Conv2d(3, 4, 3)
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    for each in (net, other):
        drive(each, build_optimiser(each, Optim(name="adan", lr=0.05)), first=0, last=4)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_a_parameter_without_a_gradient_waits_for_its_own_first_step() -> None:
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = Adan([early, late], lr=0.1)
    for step in range(3):
        early.grad = torch.ones(2)
        late.grad = torch.ones(2) if step == 2 else None
        optimiser.step()
    torch.testing.assert_close(late.detach(), torch.full((2,), 0.9))
    assert int(optimiser.state[early]["step"]) == 3 and int(optimiser.state[late]["step"]) == 1


def test_scaled_half_precision_with_clipping_learns_and_an_overflow_changes_nothing() -> None:
    precision = Precision(torch.device("cpu"), torch.float16)
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimiser = build_optimiser(net, Optim(name="adan", lr=0.05))
    scaler = torch.amp.GradScaler("cpu", enabled=precision.scaled, init_scale=2.0**30)
    inputs, losses, skipped = torch.randn(16, 4), [], 0
    for _ in range(60):
        with precision.autocast():
            output = net(inputs)
        loss = (output.float() - inputs.sum(dim=1, keepdim=True)).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        before = [parameter.detach().clone() for parameter in net.parameters()]
        overflow = not all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)
        same = all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        assert same == overflow
        skipped += overflow
        losses.append(loss.item())
    assert 0 < skipped < 30
    assert losses[-1] < 0.2 * losses[0]


def walk(net: nn.Module, optimiser: torch.optim.Optimizer, *, steps: int, held: int = -1) -> None:
    """Steps on gradients that do not change; in step `held` the bias has none."""
    for step in range(steps):
        for name, parameter in net.named_parameters():
            generator = torch.Generator().manual_seed(step)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            if step == held and name == "bias":
                parameter.grad = None
        optimiser.step()


def test_decisions_on_the_device_change_no_result() -> None:
    nets = [nn.Conv2d(3, 4, 3)]
    nets.append(copy.deepcopy(nets[0]))
    here, there = (Adan(net.parameters(), lr=0.05, weight_decay=0.1) for net in nets)
    there.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    for net, optimiser in zip(nets, (here, there), strict=True):
        walk(net, optimiser, steps=5, held=2)
    for ours, theirs in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for optimiser in (here, there):  # the bias has missed a step, and no longer shares its number with the weight
        assert [int(state["step"]) for state in optimiser.state.values()] == [5, 4]


def test_parameters_that_step_together_share_their_number_of_steps_also_when_loaded() -> None:
    net = nn.Conv2d(3, 4, 3)
    optimiser, resumed = (Adan(net.parameters(), lr=0.05) for _ in range(2))
    walk(net, optimiser, steps=2)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for each in (optimiser, resumed):
        steps = [state["step"] for state in each.state.values()]
        assert steps[0] is steps[1] and steps[0].item() == 2
