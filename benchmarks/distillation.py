"""Whether labels of a teacher help a student: trained on few measured scenes, and with labels of the other ones beside.

    python benchmarks/distillation.py TEACHER --data PACKED [--labelled 0.2] [--recipe unet-lite] [override ...]

The training scenes of the data are dealt by a hash: a share keeps its measured depth, of the rest the images alone are
kept, and `depthray predict --as-labels` labels them. The student is trained on the former, and again on both, for as
many steps of as many frames; overrides that begin with loss.teacher are of the second. Both, and the teacher, are
scored on the validation scenes, which no student has seen. Differences are in pairs of frames, with intervals over
scenes. TEACHER is a run or checkpoint, and whether it has seen the scenes that it labels is up to who trained it; or a
recipe, trained here on a share of the scenes (--teacher-scenes) that neither student sees, by the overrides that begin
with `teacher:`, and those of neither loss.teacher nor teacher: are of both students alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import depthray
from depthray.__main__ import main as command
from depthray.batch import Sample
from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.source import Frame, Source
from depthray.data.sources import open_source, recognise
from depthray.data.split import split
from depthray.errors import UsageError, count_of
from depthray.evaluation.comparing.comparison_report import markdown

TEACHING = "loss.teacher."
OF_TEACHER = "teacher:"  # an override of the recipe by which the teacher is trained
USUAL = (f"{TEACHING}log_l1=0.5", f"{TEACHING}gradient_matching=0.2")


class Part:
    """Some frames of a data set, with a side of the split each. See `depthray.data.source.Source`."""

    def __init__(self, source: Source, sides: dict[int, str], *, measured: bool) -> None:
        self._source, self._indices, self._measured = source, sorted(sides), measured
        self.frames: Sequence[Frame] = [source.frames[each]._replace(split=sides[each]) for each in self._indices]
        self.keys = source.keys - {"teacher", "sigma"}
        self.fingerprint = sha256(f"{source.fingerprint} {sorted(sides.items())} {measured}".encode()).hexdigest()

    def read(self, index: int) -> Sample:
        """The sample of a frame; depth of 0 where it is not to be known."""
        native = self._source.read(self._indices[index])
        sample: Any = {key: value for key, value in native.items() if key not in ("teacher", "sigma")}
        if not self._measured:
            sample["depth"] = np.zeros_like(sample["depth"])
        return sample  # type: ignore[no-any-return]

    def faults(self, index: int) -> list[str]:
        """Those of the frame."""
        return self._source.faults(self._indices[index])


def main(argv: list[str] | None = None) -> None:
    """Label, train twice, compare, and print the tables."""
    args = _parse(argv)
    parts = deal(args)
    measured, labels = parts["measured"], args.out / "labels"
    teacher = _teacher(args, parts)
    words = ["predict", str(teacher), "--data", str(parts["unmeasured"]), "--out", str(labels), "--as-labels"]
    _timed("labels", lambda: command(words))
    taught = [each for each in args.overrides if each.startswith(TEACHING)] or list(USUAL)
    common = [each for each in args.overrides if not each.startswith((TEACHING, OF_TEACHER))]
    frames = len(split(open_source(Data(root=str(measured))).frames, Data(root=str(measured))).train)
    common.append(f"data.epoch_frames={frames}")  # as many steps
    sets = [f"data.sets.0.root={measured}", f"data.sets.1.root={labels}", "data.sets.1.overall=false"]
    shares = [f"data.sets.0.weight={1 - args.share}", f"data.sets.1.weight={args.share}"]
    alone, with_labels = args.out / "alone", args.out / "taught"
    _timed("alone", lambda: depthray.train(args.recipe, *common, data=measured, out=alone))
    _timed("taught", lambda: depthray.train(args.recipe, *common, *sets, *shares, *taught, out=with_labels))
    comparison = depthray.compare(alone, with_labels, teacher, data=measured, out=args.out / "comparison")
    print(f"{count_of(frames, 'frame')} an epoch, of the taught student {args.share:.0%} labelled: {' '.join(taught)}")
    print(markdown(comparison))


def deal(args: argparse.Namespace) -> dict[str, Path]:
    """Pack the measured scenes, the images of others and the teacher's own scenes -> where each lies."""
    section = Data(root=str(args.data), source=args.source or recognise(args.data))
    source = open_source(section)
    sides = split(source.frames, section)
    scene = {int(index): source.frames[int(index)].scene for index in sides.train}
    order = sorted(set(scene.values()), key=lambda name: sha256(f"{args.seed}/{name}".encode()).digest())
    measured = max(1, round(args.labelled * len(order)))
    own = round(args.teacher_scenes * len(order)) if _is_recipe(args.teacher) else 0
    if measured + own >= len(order):
        raise UsageError(f"--labelled {args.labelled}: no scene is left to label of {count_of(len(order), 'scene')}")
    names = {"measured": order[:measured], "teacher": order[len(order) - own :]}
    names["unmeasured"] = order[measured : len(order) - own]
    paths = {}
    for name, scenes in names.items():
        chosen = {index: "train" for index, each in scene.items() if each in scenes}
        print(f"{name}: {count_of(len(chosen), 'frame')} of {count_of(len(scenes), 'scene')}")
        if name != "unmeasured":
            chosen |= {int(index): "val" for index in sides.val}
        part = Part(source, chosen, measured=name != "unmeasured")
        if scenes:
            packing.pack(part, args.out / name, provenance={"name": f"{args.data} {name}"})
            paths[name] = args.out / name
    return paths


def _teacher(args: argparse.Namespace, parts: dict[str, Path]) -> Path:
    """The run that labels: the one given, or one trained on scenes of its own."""
    if not _is_recipe(args.teacher):
        return Path(args.teacher)
    words = [each.removeprefix(OF_TEACHER) for each in args.overrides if each.startswith(OF_TEACHER)]
    run: Path = args.out / "teacher-run"
    _timed("teacher", lambda: depthray.train(args.teacher, *words, data=parts["teacher"], out=run))
    return run


def _is_recipe(teacher: str) -> bool:
    return not Path(teacher).exists()


def _timed(name: str, work: Callable[[], object]) -> None:
    began = time.monotonic()
    code = work()
    if isinstance(code, int) and code:  # of a command, which has said why
        raise SystemExit(code)
    print(f"{name}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a run or checkpoint, or a recipe to train it by on scenes of its own")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of the student's recipe")
    parser.add_argument("--data", type=Path, required=True, help="frames with measured depth, of several scenes")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--labelled", type=float, default=0.2, help="share of the training scenes that stays measured")
    parser.add_argument("--teacher-scenes", type=float, default=0.5, help="share of training scenes for such a recipe")
    parser.add_argument("--share", type=float, default=0.5, help="of the taught student's frames that are labelled")
    parser.add_argument("--recipe", default="unet-lite", help="of the student")
    parser.add_argument("--seed", type=int, default=0, help="which scenes stay measured")
    parser.add_argument("--out", type=Path, default=Path("distillation"), help="folder of sets and runs")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
