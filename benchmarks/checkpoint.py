"""How long training stands still for a checkpoint, against torch.save of the same state.

    python benchmarks/checkpoint.py

The state is that of unet-resnet34 with Adam after a step, in channels_last. `save` is what the loop waits for; the
write with its digests and fsyncs goes on in a thread, and `write` is its length.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import rendered_frames
import torch

from depthray.checkpoints.save import CheckpointWriter
from depthray.training import preflight
from depthray.training.state import State, begin


def main() -> int:
    """Print both times and their ratio."""
    args = rendered_frames.parser(__doc__).parse_args()
    made = preflight.load("unet-resnet34", ["data.source=synthetic"])
    state = begin(made, torch.device("cpu"))
    one_step(state)
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
    writer = CheckpointWriter(work / "checkpoints", keep_best=1, monitor="abs_rel")
    writer.reserve(state.contents({}, fingerprint="none"))  # as the training loop does after its first step
    writer.wait()
    plain, blocked, written = [], [], []
    for round_ in range(args.rounds + 1):
        state.position.step = round_
        contents = state.contents({"abs_rel": 1.0}, fingerprint="none")
        plain.append(
            timed(
                lambda contents=contents: torch.save({"model": contents.weights, **contents.state}, work / "plain.pt")
            )
        )
        began = time.perf_counter()
        blocked.append(timed(lambda contents=contents: writer.save(contents)))
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
        parameter.grad = torch.randn_like(parameter)
    state.optimiser.step()


def timed(act: object) -> float:
    """Seconds a call takes."""
    started = time.perf_counter()
    act()  # type: ignore[operator]
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
