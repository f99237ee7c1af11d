"""The optimisers of runs are torch's to the bit, and do not import its compiler."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from paths import ROOT

from depthray.training.steps.eager_optimisers import EagerAdam, EagerAdamW, EagerSGD

STEP = """
import sys, torch
from depthray.config import recipe as recipes
from depthray.training.state import begin
for name in ("adamw", "sgd", "adan"):
    recipe = recipes.read("demo", ["data.size=32,32", f"optim.name={name}"])
    state = begin(recipe, torch.device("cpu"), start=False)
    optimiser = state.optimiser
    state.model({"image": torch.rand(1, 3, 32, 32)})["depth"].sum().backward()
    before = [each.clone() for each in state.model.parameters()]
    optimiser.step()
    optimiser.zero_grad()
    optimiser.load_state_dict(optimiser.state_dict())
    assert any(not torch.equal(*pair) for pair in zip(before, state.model.parameters()))
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))}))
"""


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (EagerAdam, torch.optim.Adam, {}),
        (EagerAdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
        (EagerSGD, torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_steps_and_saved_state_are_those_of_torch(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    made = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
        calls: list[int] = []
        optimiser = kind(model.parameters(), lr=0.1, fused=True, **options)
        optimiser.register_step_pre_hook(lambda *_, calls=calls: calls.append(1))
        for step in range(4):
            if step == 2:  # as resumed
                saved = copy.deepcopy(optimiser.state_dict())
                optimiser.load_state_dict(saved)
            model(torch.ones(2, 5) * step).pow(2).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            assert all(parameter.grad is None for parameter in model.parameters())
        assert sum(calls) == 4
        made.append([*model.parameters(), *(each for state in optimiser.state.values() for each in state.values())])
    assert len(made[0]) > 4 and all(torch.equal(one, two) for one, two in zip(*made, strict=True))


def test_steps_import_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
