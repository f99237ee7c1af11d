"""depthray's scores against those of euler-eval, another's evaluator, on the same predictions: equal to 1e-6?

    pip install --target PACKAGES --no-deps -r benchmarks/peers/euler.txt
    python benchmarks/peers/cross_check.py RUN --data NYU --packages PACKAGES --frames 100

Each protocol's predictions, truth and scored pixels are written to files, which euler-eval reads in a process of its
own; it is never imported here. Exit code 1 where a metric of a frame, the mean over frames or that over all pixels is
off by more than 1e-6. What differs by definition is turned by the formulas that are printed.

Aligned depth is compared twice: as a protocol of depthray has aligned it, to the digit, and as euler-eval aligns it,
which fits the same scale and shift. It then leaves out pixels whose depth became 0 or less, and depthray sets them to
the protocol's nearest depth: frames where there are none agree to 1e-4, as euler-eval rounds to float32 in between.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from depthray.cli import evaluate as evaluate_command
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.evaluation import metrics
from depthray.evaluation.evaluate import predictions
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.protocols import PROTOCOLS, Protocol, scored_data
from depthray.runs import locate
from depthray.runtimes.open import open_model

THEIRS = Path(__file__).with_name("euler_scores.py")
ALLOWED = 1e-6
ALIGNED = 1e-4
# By our name: theirs, what turns theirs into ours, and the formula of that.
SAME = {
    "abs_rel": ("absrel", 1.0, "mean(|p - d| / d)"),
    "sq_rel": ("sqrel", 1.0, "mean((p - d)^2 / d)"),
    "rmse": ("rmse", 1.0, "sqrt(mean((p - d)^2))"),
    "rmse_log": ("rmse_log", 1.0, "sqrt(mean((ln p - ln d)^2))"),
    "log10": ("log10", 1.0, "mean(|log10 p - log10 d|)"),
    "silog": ("silog", 100.0, "100 x theirs: 100 sqrt(mean(e^2) - mean(e)^2), e = ln p - ln d"),
    "mae": ("mae", 1.0, "mean(|p - d|)"),
    "delta1": ("delta1", 1.0, "share of max(p / d, d / p) < 1.25"),
    "delta2": ("delta2", 1.0, "share of max(p / d, d / p) < 1.25^2"),
    "delta3": ("delta3", 1.0, "share of max(p / d, d / p) < 1.25^3"),
}
OURS_ALONE = {"irmse": "1000 sqrt(mean((1 / p - 1 / d)^2))", "imae": "1000 mean(|1 / p - 1 / d|)"}
DEFAULT = ("plain", "nyu-bts", "median-scaled", "affine-depth")


class Difference(NamedTuple):
    """A metric as both have it, and how far they are apart at most."""

    metric: str
    ours: float  # mean over frames
    theirs: float
    frame: float  # largest over frames
    mean: float
    pooled: float

    @property
    def largest(self) -> float:
        """Of all three."""
        return max(self.frame, self.mean, self.pooled)


def main(argv: list[str] | None = None) -> int:
    """Compare under each protocol and print a table; 1 where something is off."""
    args = _parse(argv)
    torch.set_num_threads(1)
    is_off = False
    for name in args.protocol:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            sums = write_frames(args, PROTOCOLS[name], folder)
            theirs = score(folder, args.packages)
        found = compare(sums, theirs)
        rows = [
            [each.metric, f"{each.ours:.6f}", f"{each.theirs:.6f}", f"{each.largest:.1e}", SAME[each.metric][2]]
            for each in found
        ]
        print(f"\n## {name}: {PROTOCOLS[name].about}\n\n{len(sums)} frames.\n")
        print(markdown_table(["metric", "depthray", "euler-eval", "largest difference", "formula"], rows))
        if theirs["affine"]:
            print(f"\n{describe_alignment(sums, theirs['affine'])}")
        is_off |= any(not each.largest <= ALLOWED for each in found)
    print(f"\ndepthray alone has {', '.join(f'{name} ({formula})' for name, formula in OURS_ALONE.items())}.")
    print(f"\n{'NOT EQUAL' if is_off else 'Equal'} to {ALLOWED:g}.")
    return int(is_off)


def write_frames(args: argparse.Namespace, protocol: Protocol, folder: Path) -> dict[str, metrics.Rows]:
    """Write what a protocol compares, a file a frame; the sums (K,) of each by its file's name."""
    path = locate.resolve(args.run)
    overrides = [*args.overrides, f"eval.protocol={protocol.name}"]
    request = argparse.Namespace(trust=False, overrides=overrides, data=args.data, source=args.source)
    recipe = evaluate_command.recipe_of(path, request)
    opened = open_model(path, device=torch.device("cpu"))
    source = open_source(recipe.data)
    chosen = split.side(source.frames, recipe.data, args.split)[: args.frames]
    batches = eval_batches(source, chosen, scored_data(recipe), batch_size=1)
    sums = {}
    for number, scored in enumerate(
        predictions(opened.network.eval(), batches, protocol=protocol, device=opened.device)
    ):
        if scored.depth is None:
            raise SystemExit("the frames have no depth that this network predicts")
        prediction, truth, valid = scored.depth
        raw = _raw(scored.prediction["depth"], truth) if protocol.align == "depth" else {}
        maps = {"prediction": prediction, "truth": truth, "valid": valid, **raw}
        arrays: dict[str, Any] = {key: value[0, 0].numpy() for key, value in maps.items()}
        np.savez(folder / f"{number:06d}.npz", **arrays)
        sums[f"{number:06d}"] = metrics.image_sums(prediction, truth, valid=valid).numpy()[0, 0]
    return sums


def score(folder: Path, packages: Path) -> dict[str, Any]:
    """What euler-eval says of the files in a folder; a SystemExit with its error where it does not run."""
    environment = {**os.environ, "PYTHONPATH": str(packages.resolve())}
    done = subprocess.run(
        [sys.executable, str(THEIRS), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        raise SystemExit(f"euler-eval in {packages} does not run: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(sums: dict[str, metrics.Rows], theirs: dict[str, Any]) -> list[Difference]:
    """Each metric that both have, of frames, over frames and over all pixels."""
    scored = {name: each for name, each in sums.items() if each[0]}
    if scored.keys() != theirs["frames"].keys():
        raise SystemExit(f"{len(scored)} frames have a scored pixel, and {len(theirs['frames'])} by euler-eval")
    stacked = np.stack(list(scored.values()))[:, None]
    table = metrics.image_scores(stacked[:, 0])
    means, pooled = metrics.scores(stacked), metrics.scores(stacked, pooled=True)
    found = []
    for name, (other, factor, _) in SAME.items():
        column = table[:, metrics.METRICS.index(name)]
        frames = [factor * each[other] for each in theirs["frames"].values()]
        mean, pool = (factor * theirs[key][other] for key in ("image_mean", "pixel_pool"))
        off = float(np.abs(column - frames).max())
        found.append(Difference(name, means[name], mean, off, abs(means[name] - mean), abs(pooled[name] - pool)))
    return found


def describe_alignment(sums: dict[str, metrics.Rows], affine: dict[str, Any]) -> str:
    """How euler-eval's own alignment compares with that of the protocol."""
    place = metrics.METRICS.index("abs_rel")
    pairs = [
        (float(metrics.image_scores(sums[name])[place]), each["absrel"], each["pixels"] == sums[name][0])
        for name, each in affine.items()
        if each
    ]
    whole = [abs(ours - theirs) for ours, theirs, has_all in pairs if has_all]
    far = sum(off > ALIGNED for off in whole)
    means = [math.fsum(pair[side] for pair in pairs) / max(len(pairs), 1) for side in range(2)]
    return (
        f"Aligned by euler-eval: AbsRel {means[1]:.6f}, by depthray {means[0]:.6f}. Of {len(pairs)} frames it leaves "
        f"out pixels in {len(pairs) - len(whole)}; of the others {far} are off by more than {ALIGNED:g} (it does not "
        "clamp to the protocol's range)."
    )


def _raw(depth: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B,1,h,w) -> {"raw": (B,1,H,W)} of the truth's size, not aligned"""
    size = (truth.shape[-2], truth.shape[-1])
    return {"raw": torch.nn.functional.interpolate(depth.float(), size, mode="bilinear")}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a checkpoint, an export or a run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of data.* and eval.*")
    parser.add_argument("--packages", type=Path, required=True, help="where euler-eval is installed")
    parser.add_argument("--data", help="the frames; default: those the recipe names")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, default=100, help="at most so many")
    parser.add_argument("--protocol", nargs="+", default=DEFAULT, choices=list(PROTOCOLS))
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(main())
