"""Adan: Adam with Nesterov momentum, estimated from the difference of successive gradients (Xie et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

BETAS = (0.98, 0.92, 0.99)  # of the gradient, of its difference, of the square of both


class Adan(Optimizer):
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

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Frozen parameters and those of unused outputs have no gradient.
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                _update(parameters, [self._state(parameter) for parameter in parameters], group)
        return loss

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU: it is read at every step
            for key in ("exp_avg", "exp_avg_diff", "exp_avg_sq"):
                state[key] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            state["previous"] = parameter.grad.clone()  # the first change is 0
        return state


def _update(parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """One step of all parameters of a group, each with a gradient."""
    b1, b2, b3 = group["betas"]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    m, v, n, previous = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous"))
    for state in states:
        state["step"] += 1
    steps = [int(state["step"]) for state in states]
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
    direction = torch._foreach_div(m, [1 - b1**t for t in steps])
    torch._foreach_add_(direction, torch._foreach_mul(v, [b2 / (1 - b2**t) for t in steps]))
    # eps is added after the correction, as Adam does, so that it weighs the same at every step.
    size = torch._foreach_sqrt(n)
    torch._foreach_div_(size, [math.sqrt(1 - b3**t) for t in steps])
    torch._foreach_add_(size, group["eps"])
    torch._foreach_addcdiv_(parameters, direction, size, -group["lr"])
    if group["weight_decay"]:
        torch._foreach_div_(parameters, 1 + group["lr"] * group["weight_decay"])
