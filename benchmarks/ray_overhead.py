"""What Ray Train costs: steady-state images/s against the same loop without Ray, and the time to the first step.

    python benchmarks/ray_overhead.py [--data FOLDER]

Steady state: unet-resnet34, one worker with all cores, against --local; images/s of the median interval of 2 s in the
second half of six epochs, when Ray's own processes have started; checkpoints and validation left out on both sides.
First step: from the start of `depthray train` to its first step, against a script that calls ray.init and fits a
TorchTrainer whose function does nothing, to the start of that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rendered_frames

from depthray.runs import progress

WORDS = [
    "unet-resnet34",
    "data.source=shards",
    "curriculum.chunks=1",  # one phase over all frames, so that every epoch has the same steps
    "finetune.epochs=0",
    "train.epochs=6",
    "train.log_seconds=2",
]
EMPTY = """
import sys, time
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
OUT = sys.argv[1]
ray.init()
TorchTrainer(lambda: open(OUT, "w").write(str(time.time())), scaling_config=ScalingConfig(num_workers=1),
             run_config=RunConfig(storage_path=sys.argv[2])).fit()
"""


def main() -> int:
    """Print both comparisons."""
    args = rendered_frames.build_parser(__doc__).parse_args()
    _, shards = rendered_frames.folder_and_shards(args.data)
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
    local, on_ray, first, empty = [], [], [], []
    for number in range(args.rounds):  # in turn, so that other work on the machine meets all sides
        local.append(trained(work / f"local-{number}", shards, "--local")[0])
        speed, seconds = trained(work / f"ray-{number}", shards)
        on_ray.append(speed)
        first.append(seconds)
        empty.append(empty_trainer(work / f"empty-{number}"))
    a, b = statistics.median(local), statistics.median(on_ray)
    print(f"steady state   local {a:6.1f}  Ray Train {b:6.1f} images/s  ratio {b / a:.3f}  (wanted >= 0.98)")
    c, d = statistics.median(empty), statistics.median(first)
    print(f"first step     empty trainer {c:5.1f} s  depthray {d:5.1f} s  ratio {d / c:.2f}  (wanted <= 1.15)")
    return 0


def trained(run: Path, shards: Path, *flags: str) -> tuple[float, float]:
    """Images/s of the median interval of the second half, and seconds to the first step."""
    began = time.time()
    command = [sys.executable, "-m", "depthray", "train", *WORDS, "--data", str(shards), "--out", str(run), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ})
    steps = [record for record in progress.read(run) if record["kind"] == "interval"]
    # The second half: at the start Ray's own processes are still busy.
    later = [line["images_per_second"] for line in steps if line["epoch"] > line["epochs"] // 2]
    return statistics.median(later), steps[0]["time"] - began  # the first step is reported at once


def empty_trainer(folder: Path) -> float:
    """Seconds until an empty training function runs."""
    folder.mkdir()
    began = time.time()
    script = folder / "empty.py"
    script.write_text(EMPTY, encoding="utf-8")
    marker = folder / "started"
    subprocess.run([sys.executable, str(script), str(marker), str(folder)], check=True, capture_output=True)
    return float(marker.read_text(encoding="utf-8")) - began


if __name__ == "__main__":
    sys.exit(main())
