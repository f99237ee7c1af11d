"""Adan: Adam with Nesterov momentum, estimated from the difference of successive gradients (Xie et al. 2022)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from depthray.training.steps.eager_optimisers import Eager

BETAS = (0.98, 0.92, 0.99)  # of the gradient, of its difference, of the square of both
AVERAGES = ("exp_avg", "exp_avg_diff", "exp_avg_sq")
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Adan(Eager, Optimizer):
    """m, v and n average the gradient g, its change d and (g + b2 d)^2; the step is (m + b2 v) / (sqrt(n) + eps).

    All three are corrected for their start from 0, by 1 - b^t of their own b. Weight decay comes after the step, as
    division by 1 + lr wd: the proximal form, which cannot overshoot.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float, float] = BETAS,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.register_load_state_dict_post_hook(_share_steps)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient.

        Where `found_inf` is set, () on their device and 1 for a step that is not to be taken, it is not waited for.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skip: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            # Frozen parameters and those of unused outputs have no gradient.
            for parameters in self._by_step([parameter for parameter in group["params"] if parameter.grad is not None]):
                states = [self.state[parameter] for parameter in parameters]
                if skip is None:
                    _update(parameters, states, group)
                else:
                    _update_on_device(parameters, states, group, skip > 0)
        return loss

    def _by_step(self, parameters: list[Tensor]) -> list[list[Tensor]]:
        """Parameters by the tensor that counts their steps, of a group; those that always step together share one."""
        new = [parameter for parameter in parameters if not self.state[parameter]]
        if new:
            step = torch.zeros((), device=new[0].device)
            for parameter in new:
                averages = {key: torch.zeros_like(parameter) for key in AVERAGES}
                self.state[parameter] = {"step": step, **averages, "previous": torch.zeros_like(parameter)}
        sharing = Counter(id(state["step"]) for state in self.state.values() if state)
        together: dict[int, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            together[id(self.state[parameter]["step"])].append(parameter)
        for number, members in together.items():
            if len(members) < sharing[number]:  # the others have no gradient this time
                step = self.state[members[0]]["step"].clone()
                for parameter in members:
                    self.state[parameter]["step"] = step
        return list(together.values())


def _share_steps(optimiser: Optimizer) -> None:
    """Let parameters of a group that have taken as many steps share the tensor that counts them, as loading undid."""
    for group in optimiser.param_groups:
        shared: dict[float, Tensor] = {}
        for parameter in group["params"]:
            if state := optimiser.state.get(parameter):
                step = state["step"].to(parameter.device)
                state["step"] = shared.setdefault(float(step), step)


def _update(parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """One step of parameters that share their number of steps, each with a gradient."""
    b1, b2, b3 = group["betas"]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    m, v, n, previous = ([s[key] for s in states] for key in (*AVERAGES, "previous"))
    step = states[0]["step"]
    if not step:
        torch._foreach_copy_(previous, gradients)  # the first change is 0
    step += 1
    t = int(step)
    # _foreach: one call for all parameters, where a loop would launch a kernel for each of them.
    change = torch._foreach_sub(gradients, previous)
    torch._foreach_lerp_(m, gradients, 1 - b1)
    torch._foreach_lerp_(v, change, 1 - b2)
    # d becomes g + b2 d where it is: it is not needed again, and another buffer is the size of the network.
    torch._foreach_mul_(change, b2)
    torch._foreach_add_(change, gradients)
    torch._foreach_mul_(n, b3)
    torch._foreach_addcmul_(n, change, change, 1 - b3)
    torch._foreach_copy_(previous, gradients)
    direction = torch._foreach_div(m, 1 - b1**t)
    torch._foreach_add_(direction, torch._foreach_mul(v, b2 / (1 - b2**t)))
    # eps is added after the correction, as Adam does, so that it weighs the same at every step.
    size = torch._foreach_sqrt(n)
    torch._foreach_div_(size, math.sqrt(1 - b3**t))
    torch._foreach_add_(size, group["eps"])
    torch._foreach_addcdiv_(parameters, direction, size, -group["lr"])
    if group["weight_decay"]:
        torch._foreach_div_(parameters, 1 + group["lr"] * group["weight_decay"])


def _update_on_device(
    parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any], skip: Tensor
) -> None:
    """As `_update`, equal to rounding, unless `skip`, () bool on the device: then nothing changes but the gradients."""
    b1, b2, b3 = group["betas"]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    m, v, n, previous = ([s[key] for s in states] for key in (*AVERAGES, "previous"))
    step, kind = states[0]["step"], parameters[0].dtype
    goes = (~skip).to(kind)
    # Bits times 0 are those of 0, where NaN times 0 is NaN.
    bits = [gradient.view(BITS[kind]) for gradient in gradients]
    old_bits = [gradient.view(BITS[kind]) for gradient in previous]
    torch._foreach_mul_(bits, (~skip).to(BITS[kind]))
    change = list(torch._foreach_sub(gradients, previous))
    torch._foreach_mul_(change, (step > 0).to(kind))  # the first change is 0
    step += ~skip
    t = step.double().clamp(min=1)  # before the first step that is taken, corrections would be 0 / 0
    _blend(m, gradients, (1 - b1) * goes)
    _blend(v, change, (1 - b2) * goes)
    torch._foreach_mul_(change, b2)
    torch._foreach_add_(change, gradients)
    torch._foreach_mul_(change, change)
    _blend(n, change, (1 - b3) * goes)
    torch._foreach_mul_(old_bits, skip.to(BITS[kind]))  # previous becomes the gradient, or stays
    torch._foreach_add_(old_bits, bits)
    direction = torch._foreach_div(m, (1 - b1**t).to(kind))
    torch._foreach_add_(direction, torch._foreach_mul(v, (b2 / (1 - b2**t)).to(kind)))
    size = torch._foreach_sqrt(n)
    torch._foreach_div_(size, (1 - b3**t).sqrt().to(kind))
    torch._foreach_add_(size, group["eps"])
    torch._foreach_div_(direction, size)
    torch._foreach_mul_(direction, -group["lr"] * goes)
    torch._foreach_add_(parameters, direction)
    if group["weight_decay"]:
        torch._foreach_div_(parameters, 1 + group["lr"] * group["weight_decay"] * goes)


def _blend(averages: list[Tensor], values: list[Tensor], share: Tensor) -> None:
    """Each average moves by a share, () on the device, towards its value."""
    change = torch._foreach_sub(values, averages)
    torch._foreach_mul_(change, share)
    torch._foreach_add_(averages, change)
