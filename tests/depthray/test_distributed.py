"""Two processes compute what one does: real gloo groups, joined the way torchrun announces them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from process_groups import launch

STEP = """
import json, sys
from depthray import distributed
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.state import Hooks, begin
from depthray.training.throughput import Interval
from depthray.training.loop import fit
device = distributed.start(gpu=False)
made = preflight.load("demo", sys.argv[2:])
state = begin(made, device)
state.hooks = Hooks(stop_requested=lambda: True)  # after one step
list(fit(made, state, Frames.open(made)))
if distributed.is_main():
    import torch
    torch.save(state.model.state_dict(), sys.argv[1])
distributed.stop()
"""
WORDS = [
    "data.size=32,64",
    "data.frames=40",
    "train.batch_size=8",
    "train.precision=fp32",
    "optim.name=sgd",
    "optim.lr=0.1",
    "optim.schedule=constant",
]


@pytest.mark.parametrize("words", [[], ["train.accumulate=2"], ["optim.clip_norm=0.01"]])
def test_one_step_of_a_batch_is_the_same_on_one_and_two_processes(tmp_path: Path, words: list[str]) -> None:
    for processes in (1, 2):
        launch(STEP, processes, str(tmp_path / f"{processes}.pt"), *WORDS, *words)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5


TRAIN = """
import sys
from pathlib import Path
from depthray.__main__ import main
code = main(sys.argv[1:])
names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
left = [name for name in names if "gloo" in name]
sys.exit(code or (f"threads of the process group are left: {left}" if left else 0))
"""


def test_the_command_trains_under_torchrun(tmp_path: Path) -> None:
    run = tmp_path / "run"
    # ResNet, for batch-norm statistics, which each rank keeps by itself until they are scored.
    words = [*WORDS, "train.epochs=1", "model.encoder=resnet18"]
    launch(TRAIN, 2, "train", "demo", *words, "--out", str(run))
    records = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [epoch["epoch"] for epoch in epochs] == [1]
    assert len(list((run / "checkpoints").glob("epoch-*"))) == 1


NO_MASK = ["loss.mask_bce=0", "loss.mask_dice=0", "eval.monitor=abs_rel"]
SMALL = [
    *("data.source=synthetic", "data.size=64,64", "train.batch_size=4", "optim.lr=1e-3", "optim.momentum=0"),
    *("optim.weight_decay=0.1", "optim.average=none", "curriculum.sizes=[]", "curriculum.scale_weights=[]"),
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("depthmasknet", [*NO_MASK, "model.wiring=code"]),
        ("depthnet", ["loss.multiscale=0", "loss.gradient=0", "loss.l1=1", "train.accumulate=2"]),
    ],
)
def test_two_processes_leave_untaught_what_one_does(tmp_path: Path, name: str, words: list[str]) -> None:
    # Two steps, as gradients that did not come are missed in the second; without statistics of the process's own part.
    code = STEP.replace('"demo"', f'"{name}"').replace("lambda: True", "lambda: state.position.step >= 1")
    code = code.replace("list(fit", "state.model.eval().train = lambda mode=True: state.model\nlist(fit")
    for processes in (1, 2):
        launch(code, processes, str(tmp_path / f"{processes}.pt"), *WORDS, *SMALL, *words)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5
