"""The command line of `depthray predict`: its parser, what flags exclude each other, and the values of some flags."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.flags import camera_flags, further_inputs, spread_flags, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.predicting import whole_sets
from depthray.cli.predicting.depth_files import FORMATS
from depthray.cli.predicting.image_targets import SUFFIXES
from depthray.errors import UsageError, did_you_mean

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    from depthray.imaging.photos import PhotoLimits
    from depthray.imaging.sheets import ColourScale

KEY = "DEPTHRAY_API_KEY"
_OF_CHECKPOINTS = ("device", "precision", "trust", "flip", "scales", "tiles", "confidence", "ensemble")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; with --url every positional argument is an image, with --data all but the first an override."""
    parser = build_parser()
    arguments = parser.parse_intermixed_args(argv)
    whole_sets.check_flags(arguments)
    if not arguments.data:
        _check_images(parser, arguments)
    _check_numbers(arguments)
    return arguments


def _check_images(parser: CommandParser, arguments: argparse.Namespace) -> None:
    """Raise UsageError where a checkpoint or images are missing, or flags do not fit together."""
    if arguments.checkpoint and not arguments.images:  # of one argument alone it is the checkpoint that is missing
        arguments.checkpoint, arguments.images = None, [arguments.checkpoint]
    if not arguments.images:
        parser.error("the following arguments are required: IMAGE|FOLDER")
    for flag in _OF_CHECKPOINTS if arguments.url else ("model", "key"):
        if getattr(arguments, flag):
            raise UsageError(f"--{flag} {'cannot be combined with' if arguments.url else 'needs'} --url")
    if arguments.url:
        arguments.images = [*filter(None, [arguments.checkpoint]), *arguments.images]
    elif arguments.checkpoint and arguments.checkpoint.suffix.lower() in SUFFIXES and arguments.checkpoint.is_file():
        raise UsageError(
            f"{arguments.checkpoint} is an image or a video; give the checkpoint or run first, and images after it"
        )
    elif not arguments.checkpoint:
        raise UsageError("no checkpoint is given; name a checkpoint or a run, and images after it")


def _check_numbers(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.min_confidence <= 1:
        raise UsageError(f"--min-confidence {arguments.min_confidence:g}: give a number from 0 to 1")
    for flag in ("every", "frames", "tiles"):
        if (value := getattr(arguments, flag)) is not None and value < 1:
            raise UsageError(f"--{flag} {value}: give a number above 0")


def build_set_parser() -> argparse.ArgumentParser:
    """The parser of `depthray predict` where it predicts a data set, as a job does."""
    return build_parser(is_set=True)


def build_parser(*, is_set: bool = False) -> CommandParser:
    """The parser of `depthray predict`. With `is_set` --data is required."""
    images = "IMAGE|FOLDER [IMAGE|FOLDER ...] [options]"
    parser = CommandParser(
        prog="depthray predict",
        usage=f"depthray predict CHECKPOINT|RUN {images}\n       depthray predict --url http://HOST:8000 {images}\n"
        "       depthray predict CHECKPOINT|RUN --data SET --out PLACE [options]",
        description="Depth of photographs, videos and whole data sets, in metres, at their own size.",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="a checkpoint, an export, or a run (its best one)")
    parser.add_argument(
        "images",
        type=Path,
        nargs="*",
        metavar="IMAGE|FOLDER",
        help="photographs (JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, HEIC; EXIF orientation is applied), videos, camera:0",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions"),
        help="output folder (default: predictions); of a data set also an address",
    )
    parser.add_argument(
        "--format",
        help="of png (16 bit, millimetres, 0 = invalid), npy (float32 metres), npz (depth, and what else is predicted, "
        "such as sigma and confidence), colour, ply, glb (default: png,colour; npy,colour of a network whose depth is "
        "not in metres). Of a video colour is an MP4 and the default, each other format a file a frame",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="ply, glb: no points of pixels whose probability of being right within 10 percent is below P",
    )
    parser.add_argument(
        "--keep-invalid",
        action="store_true",
        help="depth of pixels too of which the network says that there is none (model.valid_mask); without it they are "
        "0, or no points, in all formats but npz, which has its map `valid`",
    )
    parser.add_argument(
        "--range", metavar="NEAR,FAR", help="metres at the ends of the colours (default: of each photograph and video)"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video one frame in N (default: 1)")
    parser.add_argument("--frames", type=int, metavar="N", help="of a video or camera N frames at most (default: all)")
    camera_flags.add_flags(parser, about="for ply and glb, and for networks that need it (data.canonical_focal)")
    further_inputs.add_flags(parser, metavar="FILE|FOLDER")
    parser.add_argument("--url", help="a server of `depthray serve` instead of a checkpoint")
    parser.add_argument(
        "--model", metavar="NAME", help="with --url: another than the server's default, or NAME@VERSION"
    )
    parser.add_argument("--key", help=f"with --url: the server's API key (default: {KEY} of the environment)")
    parser.add_argument("--recursive", action="store_true", help="folders with all below them")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    formats = (
        "fp32 (default), tf32, bf16, fp16, or auto: the fastest of the device; only fp32 is right to the millimetre"
    )
    parser.add_argument("--precision", metavar="FORMAT", help=formats)
    parser.add_argument("--flip", action="store_true", help="the mean with the mirrored image: twice the time")
    parser.add_argument(
        "--scales", metavar="S,S", help="the mean with these multiples of the network's size: 0.75,1.25"
    )
    parser.add_argument(
        "--tiles", type=int, metavar="N", help="detail of images of N times the network's size, in 2N-1 tiles a side"
    )
    spread_flags.add_flags(parser)
    trust.add_flag(parser)
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=64,
        metavar="N",
        help="refuse larger images before decoding (default: 64)",
    )
    whole_sets.add_flags(parser, required=is_set)
    return parser


def formats_of(text: str) -> list[str]:
    """The flag --format, `png,npy` -> the names of formats, each once."""
    formats = list(dict.fromkeys(text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format: no format '{name}'{did_you_mean(name, FORMATS)}")
    return formats


def scales_of(text: str | None) -> list[float]:
    """The flag --scales, `0.75,1.25` -> multiples of the network's size."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"--scales={text}: give numbers such as 0.75,1.25") from None


def colour_scale_of(text: str) -> ColourScale:
    """The flag --range, `near,far` in metres -> a scale of colours."""
    from depthray.imaging import sheets

    try:
        near, far = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--range={text}: give two numbers NEAR,FAR in metres, such as 0.5,8") from None
    if not (math.isfinite(far) and 0 <= near < far):
        raise UsageError(f"--range={text}: NEAR is at least 0, and FAR is larger")
    return sheets.scale_of(near, far)


def photo_limits(megapixels: float) -> PhotoLimits:
    """The flag --max-megapixels -> the limits of images that are read."""
    from depthray.imaging import photos

    if not 0 < megapixels < 1e6:
        raise UsageError(f"--max-megapixels={megapixels:g}: give a number above 0")
    return photos.LIMITS._replace(pixels=int(megapixels * 1e6))
