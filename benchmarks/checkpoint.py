"""How long a checkpoint blocks training, against torch.save of the same state.

    python benchmarks/checkpoint.py

The state is that of unet-resnet34 with Adam after a step, in channels_last. `save` is what the loop waits for; the
write with its digests and fsyncs continues in a thread; `write` is how long that takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import rendered_frames
import torch

from depthray.checkpoints.save import CheckpointWriter
from depthray.training import preflight
from depthray.training.state import State, begin


def main() -> int:
    """Print both times and their ratio."""
    args = rendered_frames.build_parser(__doc__).parse_args()
    recipe = preflight.load("unet-resnet34", ["data.source=synthetic"])
    state = begin(recipe, torch.device("cpu"))
    one_step(state)
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
    writer = CheckpointWriter(work / "checkpoints", keep_best=1, monitor="abs_rel")
    writer.reserve(state.contents({}, fingerprint="none"))  # as the training loop does after its first step
    writer.wait()
    plain, blocked, written = [], [], []
    for round_ in range(args.rounds + 1):  # one more: the first is left out of the medians
        state.position.step = round_
        contents = state.contents({"abs_rel": 1.0}, fingerprint="none")
        plain.append(timed(partial(torch.save, {"model": contents.weights, **contents.state}, work / "plain.pt")))
        began = time.perf_counter()
        blocked.append(timed(partial(writer.save, contents)))
        writer.wait()
        written.append(time.perf_counter() - began)
    usual, ours, whole = (statistics.median(times[1:]) for times in (plain, blocked, written))
    print(f"torch.save       {usual * 1e3:8.0f} ms")
    print(f"save (blocking)  {ours * 1e3:8.0f} ms   first time {blocked[0] * 1e3:.0f} ms")
    print(f"write (thread)   {whole * 1e3:8.0f} ms")
    print(f"ratio            {ours / usual:8.2f}  (wanted <= 1.0)")
    return 0


def one_step(state: State) -> None:
    """Give the optimiser its moments."""
    for parameter in state.model.parameters():
        # Adam has its two moments, most of the state, only after a step.
        parameter.grad = torch.randn_like(parameter)
    state.optimiser.step()


def timed(act: Callable[[], object]) -> float:
    """Seconds a call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
