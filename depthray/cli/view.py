"""`depthray view`: a checkpoint's frames to look at: a Rerun recording, an error sheet, an edge sheet, point clouds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import DataError, UsageError
from depthray.runs import locate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthray.batch import Sample
    from depthray.data.source import Source
    from depthray.imaging.camera import Camera
    from depthray.imaging.rerun import RecordedFrame
    from depthray.imaging.sheets import SheetRow
    from depthray.predict import Predictor


def main(argv: list[str]) -> int:
    """Predict some frames of a split and write a recording, sheets and point clouds of them."""
    arguments = build_parser().parse_intermixed_args(argv)
    if not arguments.no_recording:
        _need_rerun()  # before the frames are predicted
    from depthray import predict
    from depthray.cli.evaluate import recipe_of
    from depthray.data import split
    from depthray.data.sources import open_source

    path = locate.resolve(arguments.checkpoint)
    recipe = recipe_of(path, arguments)
    if "depth" not in recipe.data.targets:
        raise UsageError(f"{path}: this network predicts no depth; `depthray evaluate` draws its masks")
    source = open_source(recipe.data)
    indices = _spread(split.side(source.frames, recipe.data, arguments.split), arguments.frames)
    loaded = predict.load(path, trust=arguments.trust)
    # With the recipe as the command line changes it, not the checkpoint's own.
    predictor = predict.Predictor(loaded.model, recipe, device=loaded.device, runtime=loaded.runtime)
    if predictor.depth_kind != "metric":
        print("depth of this network is not in metres: it is fitted to the truth of each frame")
    views = [_view(predictor, source, index) for index in indices]
    for file in _write(arguments.out, views, recording=not arguments.no_recording):
        print(f"-> {file}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray view`."""
    from depthray.cli.evaluate import add_frames

    parser = CommandParser(
        prog="depthray view",
        description="Frames of a data set as a checkpoint sees them: recording for Rerun, sheets, point clouds.",
        epilog="The recording needs `pip install 'depthray[viz]'` and is opened with `rerun DIR/recording.rrd`.",
    )
    add_frames(parser)
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="frames, spread over the split; default: 6")
    parser.add_argument("--out", type=Path, default=Path("view"), metavar="DIR", help="where to write; default: view")
    parser.add_argument("--no-recording", action="store_true", help="sheets and point clouds only, without Rerun")
    return parser


def _need_rerun() -> None:
    if find_spec("rerun") is None:
        raise UsageError("a recording needs Rerun: pip install 'depthray[viz]', or give --no-recording")


def _spread(indices: Sequence[int], count: int) -> list[int]:
    if count < 1:
        raise UsageError(f"--frames {count}: must be at least 1")
    count = min(count, len(indices))
    return [indices[number * len(indices) // count] for number in range(count)]


def _view(predictor: Predictor, source: Source, index: int) -> RecordedFrame:
    """A frame at its own size, its other inputs made as in an evaluation."""
    import torch
    from torch.nn import functional as F

    from depthray import models
    from depthray.batch import to_device
    from depthray.data.loader import eval_batches
    from depthray.evaluation.alignment import to_metres
    from depthray.imaging.rerun import RecordedFrame

    data, native = predictor.recipe.data, source.read(index)
    if "depth" not in native:
        raise DataError(f"frame '{native['id']}' has no depth to compare with")
    ((_, batch),) = eval_batches(source, [index], data, batch_size=1)
    batch = to_device(batch, predictor.device, min_depth=data.min_depth, max_depth=data.max_depth)
    with torch.inference_mode():
        prediction = models.run(predictor.model, batch)
        if "depth" not in prediction:
            raise UsageError(
                f"this network predicts {', '.join(prediction)}, no depth; `depthray evaluate` draws masks"
            )
        depth = F.interpolate(prediction["depth"].float(), native["depth"].shape, mode="bilinear", align_corners=False)
        limits = (data.min_depth, data.max_depth)
        depth = to_metres(depth, batch["depth"], valid=batch["valid"], limits=limits, kind=predictor.depth_kind)
    return RecordedFrame(native["id"], native["image"], native["depth"], depth[0, 0].cpu().numpy(), _camera(native))


def _camera(sample: Sample) -> Camera:
    from depthray.imaging.camera import assumed_camera
    from depthray.imaging.distortion import camera_of

    if "intrinsics" not in sample:
        return assumed_camera(*sample["depth"].shape)
    return camera_of(sample["intrinsics"], sample.get("distortion"))


def _write(out: Path, views: list[RecordedFrame], *, recording: bool) -> list[Path]:
    from depthray.imaging import export, sheets
    from depthray.imaging import rerun as recordings

    out.mkdir(parents=True, exist_ok=True)
    errors = [sheets.SheetRow(view.id, view.image, view.truth, view.prediction) for view in views]
    files = [
        sheets.save_png(out / "errors.png", sheets.draw_sheet(errors)),
        sheets.save_png(out / "edges.png", _edge_sheet(views)),
    ]
    for number, view in enumerate(views):
        stem = f"{number:02d}"
        files.append(export.write_ply(out / f"{stem}.ply", view.prediction, view.image, camera=view.camera))
        files.append(export.write_glb(out / f"{stem}.glb", view.prediction, view.image, camera=view.camera))
    return [*files, recordings.write_recording(out / "recording.rrd", views)] if recording else files


def _edge_sheet(views: list[RecordedFrame]) -> NDArray[np.uint8]:
    """Frames as rows of image, true edges, predicted edges and their difference, in metres a pixel."""
    from depthray.imaging import sheets

    rows = [_edges(view) for view in views]
    scale = sheets.ColourScale(0.0, 0.2, 0.05)
    return sheets.draw_sheet(rows, depth=scale, error=scale)


def _edges(view: RecordedFrame) -> SheetRow:
    import numpy as np

    from depthray.imaging import edges, sheets

    sharpness = edges.sharpness(view.prediction, view.truth)
    known = edges.neighbours_measured(view.truth)
    truth, prediction = (
        # Above 0, as a sheet draws 0 as unmeasured.
        np.where(known, np.maximum(edges.edge_strength(depth), 1e-6), 0).astype(np.float32)
        for depth in (view.truth, view.prediction)
    )
    return sheets.SheetRow(
        view.id, view.image, truth, prediction, kind="edges", caption=_describe_sharpness(sharpness.ratio)
    )


def _describe_sharpness(ratio: float) -> str:
    """How strong predicted edges are by the truth's: neither blur nor noise is a merit."""
    if ratio != ratio:  # NaN
        return "no edges in the truth"
    verdict = ": blurred" if ratio < 0.8 else ": noise" if ratio > 1.25 else ""
    return f"edges {ratio:.0%} of the truth's{verdict}"
