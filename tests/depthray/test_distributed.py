"""Two processes compute what one does: real gloo groups, joined the way torchrun announces them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from process_groups import launch

from depthray import distributed

OVERRIDES = [
    "data.size=32,64",
    "data.frames=40",
    "train.batch_size=8",
    "train.precision=fp32",
    "optim.name=sgd",
    "optim.lr=0.1",
    "optim.schedule=constant",
]
NO_MASK = ["loss.mask_bce=0", "loss.mask_dice=0", "eval.monitor=abs_rel"]
SMALL = [
    *("data.source=synthetic", "data.size=64,64", "train.batch_size=4", "optim.lr=1e-3", "optim.momentum=0"),
    *("optim.weight_decay=0.1", "optim.average=none", "curriculum.sizes=[]", "curriculum.scale_weights=[]"),
]
STEPS = {
    "plain": ("demo", []),
    "accumulated": ("demo", ["train.accumulate=2"]),
    "clipped": ("demo", ["optim.clip_norm=0.01"]),
    "refined": (
        "demo",
        [
            "data.inputs=[image,sparse]",
            "data.sparse.samples=0,500",
            "data.sparse.dropout=0.2",
            "model.refine=nlspn",
            "model.fill=guided",
            "model.sparse_fusion=late",
            "loss.monocular=1",
        ],
    ),
}
UNUSED_OUTPUTS = {
    "depthmasknet": ("depthmasknet", [*SMALL, *NO_MASK, "model.wiring=code"]),
    "depthnet": ("depthnet", [*SMALL, "loss.multiscale=0", "loss.gradient=0", "loss.l1=1", "train.accumulate=2"]),
}
# All cases in one pair of processes, of which the first trains each alone before it joins the other.
TRAIN_CASES = """
import json, os, sys, torch
from pathlib import Path
from depthray import distributed
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.state import Hooks, begin
from depthray.training.loop import fit

def train(path, *, name, overrides, steps, frozen):
    recipe = preflight.load(name, overrides)
    state = begin(recipe, torch.device("cpu"))
    state.hooks = Hooks(stop_requested=lambda: state.position.step >= steps - 1)
    if frozen:
        state.model.eval().train = lambda mode=True: state.model
    list(fit(recipe, state, Frames.open(recipe)))
    if distributed.is_main():
        torch.save(state.model.state_dict(), path)

out, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
if os.environ["RANK"] == "0":
    for case, options in cases.items():
        train(out / f"{case}-1.pt", **options)
distributed.start(gpu=False)
for case, options in cases.items():
    train(out / f"{case}-2.pt", **options)
distributed.stop()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of each case, CASE-N.pt from N processes."""
    out = tmp_path_factory.mktemp("trained")
    cases = {
        case: {"name": name, "overrides": [*OVERRIDES, *overrides], "steps": 1, "frozen": False}
        for case, (name, overrides) in STEPS.items()
    }
    # Two steps, as gradients that did not come are missed in the second; without batch-norm statistics of the
    # process's own part.
    cases |= {
        case: {"name": name, "overrides": [*OVERRIDES, *overrides], "steps": 2, "frozen": True}
        for case, (name, overrides) in UNUSED_OUTPUTS.items()
    }
    launch(TRAIN_CASES, 2, str(out), json.dumps(cases))
    return out


def difference(trained: Path, case: str) -> float:
    """The largest one between the weights from one and from two processes."""
    one, two = (torch.load(trained / f"{case}-{processes}.pt", weights_only=True) for processes in (1, 2))
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@pytest.mark.parametrize("case", STEPS)
def test_one_step_of_a_batch_is_the_same_on_one_and_two_processes(trained: Path, case: str) -> None:
    assert difference(trained, case) < 1e-5


@pytest.mark.parametrize("case", UNUSED_OUTPUTS)
def test_two_processes_leave_untrained_what_one_does(trained: Path, case: str) -> None:
    assert difference(trained, case) < 1e-5


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
    # With batch norm, for statistics, which each rank keeps by itself until they are scored.
    overrides = [*OVERRIDES, "train.epochs=1", "model.encoder=timm/test_efficientnet"]
    launch(TRAIN, 2, "train", "demo", *overrides, "--out", str(run))
    records = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [epoch["epoch"] for epoch in epochs] == [1]
    assert len(list((run / "checkpoints").glob("epoch-*"))) == 1


def test_statistics_of_batch_norm_are_not_sent_in_each_pass_but_other_state_is() -> None:
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(2)
            self.register_buffer("mean", torch.zeros(3), persistent=False)  # a constant

    assert not distributed.reads_changing_buffers(Normed())
    spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2))  # estimates a vector in each pass
    assert distributed.reads_changing_buffers(torch.nn.Sequential(Normed(), spectral))


# Each process counts what it reads; rank 1 must get the values without reading.
SHARE = """
import sys, torch
from pathlib import Path
from depthray import distributed
from depthray.errors import CheckpointError

distributed.start(gpu=False)
read = []
def make():
    read.append(1)
    torch.manual_seed(3)
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    shared = torch.arange(5, dtype=torch.int64)
    return {"last": last, "list": [shared, shared, torch.empty(0), torch.tensor(2.5).bfloat16()], "text": ("a", 1)}

got, want = distributed.made_by_main(make), None
reads = len(read)
want = make()
assert reads == (1 if distributed.is_main() else 0), reads
assert torch.equal(got["last"], want["last"]) and got["last"].stride() == want["last"].stride()
assert all(torch.equal(*pair) for pair in zip(got["list"], want["list"]))
assert got["list"][0] is got["list"][1] and got["list"][3].dtype == torch.bfloat16 and got["text"] == ("a", 1)

def fail():
    raise CheckpointError("damaged")
try:
    distributed.made_by_main(fail)
except CheckpointError as error:
    assert str(error) == "damaged"
else:
    raise AssertionError("no error")
rank = distributed.rank()
assert distributed.gather_to_main([rank, rank + 10]) == ([0, 10, 1, 11] if rank == 0 else [])
distributed.stop()
"""


def test_what_rank_0_reads_is_sent_to_all_and_so_is_its_error() -> None:
    launch(SHARE, 2)
    assert distributed.made_by_main(lambda: {"a": torch.ones(1)})["a"] == 1
    assert distributed.gather_to_main(range(3)) == [0, 1, 2]


# The first process evaluates alone before it joins the other.
SCORE = """
import json, os, sys, torch
from pathlib import Path
from depthray import distributed
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import of
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.state import begin

def scores(everywhere):
    recipe = preflight.load("demo", sys.argv[2:])
    frames, cpu = Frames.open(recipe), torch.device("cpu")
    network = begin(recipe, cpu).model
    return evaluate(network, frames.val_batches(), protocol=of(recipe), device=cpu, everywhere=everywhere)

out = Path(sys.argv[1])
if os.environ["RANK"] == "0":
    alone = scores(True)
distributed.start(gpu=False)
part, all_of_them = scores(False), scores(True)
assert part.scores() == all_of_them.scores()
if distributed.is_main():
    assert alone.scores() == part.scores() and len(part.rows) == len(alone.rows)
    assert part.table.tolist() == alone.table.tolist()
else:
    assert 0 < len(part.rows) < len(all_of_them.rows)
distributed.stop()
"""


def test_scores_are_equal_everywhere_though_rank_0_alone_has_all_frames(tmp_path: Path) -> None:
    launch(SCORE, 2, str(tmp_path), *OVERRIDES, "data.val_fraction=0.5", "eval.batch_size=2")
