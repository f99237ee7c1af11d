"""Torch's optimisers without its compiler, which they import at their first use: a second or two of a run's start.

The wrappers that import it keep a compiler out of what they wrap, and no run compiles its optimiser. What they wrap, by
the `__wrapped__` of Python's own convention, is the same code, so that weights are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer


class Eager:
    """Stands before an optimiser among the bases of a class. Hooks run as ever."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)


def _step_of(kind: type[Optimizer]) -> Callable[..., Any]:
    step: Callable[..., Any] = torch.no_grad()(unwrap(kind.step))
    return step


class EagerAdam(Eager, Adam):
    """Adam."""

    step = _step_of(Adam)


class EagerAdamW(Eager, AdamW):
    """AdamW."""

    step = _step_of(AdamW)


class EagerSGD(Eager, SGD):
    """SGD."""

    step = _step_of(SGD)
