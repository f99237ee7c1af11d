"""`depthray measure`: the distance in metres between two points of a photograph."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.flags import camera_flags, further_inputs, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def main(argv: list[str]) -> int:
    """Predict depth, unproject both pixels and print how far apart they are."""
    arguments = build_parser().parse_args(argv)
    from depthray.imaging import photos
    from depthray.imaging.camera import assumed_camera, unproject
    from depthray.predict import load

    camera = camera_flags.given(arguments)
    given, rgb = further_inputs.given(arguments), photos.read(arguments.image)
    pixels = [(arguments.x1, arguments.y1), (arguments.x2, arguments.y2)]
    _refuse_outside(pixels, rgb)  # before the network is loaded, which takes seconds
    predictor = load(arguments.checkpoint, device=arguments.device, trust=arguments.trust)
    predictor.check_metres("measuring")
    further_inputs.check(given, predictor.recipe.data.inputs, optional=predictor.optional_inputs)
    files = {key: further_inputs.find(path, Path(arguments.image.stem)) for key, path in given.items()}
    others = {key: further_inputs.read(key, path, limits=photos.LIMITS) for key, path in files.items()}
    depth = predictor.predict(rgb, camera=camera, **others)
    if camera is None:
        print("WARNING: the camera is ASSUMED to see 60 degrees from left to right; give --intrinsics", file=sys.stderr)
        camera = assumed_camera(*depth.shape)
    ends = [unproject(x, y, float(depth[y, x]), camera=camera) for x, y in pixels]
    for (x, y), (right, down, forward) in zip(pixels, ends, strict=True):
        if math.isnan(right):
            raise UsageError(f"pixel ({x}, {y}) is beyond what a lens of this --distortion sees")
        print(f"({x}, {y})  depth {forward:.3f} m  at x {right:.3f}, y {down:.3f}, z {forward:.3f} m")
    print(f"distance  {float(((ends[0] - ends[1]) ** 2).sum() ** 0.5):.3f} m")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray measure`."""
    parser = CommandParser(
        prog="depthray measure", description="Distance in metres between two pixels of a photograph, by its depth."
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, an export, or a run (its best one)")
    parser.add_argument("image", type=Path, help="a photograph; EXIF orientation is applied")
    for name, about in (("x1", "column"), ("y1", "row"), ("x2", "column"), ("y2", "row")):
        parser.add_argument(name, type=int, help=f"{about} of the {'first' if name[1] == '1' else 'second'} pixel")
    camera_flags.add_flags(parser, about="without which 60 degrees from left to right are assumed")
    further_inputs.add_flags(parser, metavar="FILE|FOLDER")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    trust.add_flag(parser)
    return parser


def _refuse_outside(pixels: list[tuple[int, int]], rgb: NDArray[np.uint8]) -> None:
    height, width = rgb.shape[:2]
    for x, y in pixels:
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"pixel ({x}, {y}) is outside the image, which is {width}x{height}")
