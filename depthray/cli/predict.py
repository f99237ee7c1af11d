"""`depthray predict`: images of the command line to files."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.cli.flags import further_inputs, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.predicting import clips, whole_sets
from depthray.cli.predicting.depth_files import FORMATS, METRIC_FORMATS, describe, write_maps
from depthray.cli.predicting.image_targets import SUFFIXES, find_targets, refuse_missing
from depthray.errors import DataError, UsageError, did_you_mean
from depthray.evaluation.protocols import MEANING
from depthray.predict import load
from depthray.waiting import Heartbeat

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    import numpy as np
    from numpy.typing import NDArray

    from depthray.imaging.camera import Camera
    from depthray.imaging.photos import PhotoLimits
    from depthray.imaging.sheets import ColourScale
    from depthray.predicted_sets.set_plan import SetRequest

KEY = "DEPTHRAY_API_KEY"


class _Request(NamedTuple):
    """What the command line asks for, the same for every image."""

    out: Path
    formats: list[str]
    clip_formats: list[str]  # of a video
    camera: Camera | None
    limits: PhotoLimits
    others: dict[str, Path]
    scale: ColourScale | None
    every: int
    frames: int
    min_confidence: float


class _Network(NamedTuple):
    """What turns an image into maps, here or on a server."""

    inputs: tuple[str, ...]
    optional: tuple[str, ...]  # those of the inputs that it can do without
    depth: str  # what its numbers are: "metres", or what they are instead
    # The file of the image, None for a frame of a video; its pixels; further inputs.
    maps: Callable[[Path | None, NDArray[np.uint8], Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]
    has_confidence: bool | None = None  # None: what a server has shows with its first answer
    # Its pixels, camera and maps that were predicted -> what of it is not as in training.
    warnings: Callable[[NDArray[np.uint8], Camera | None, Mapping[str, NDArray[np.float32]]], list[str]] = (
        lambda rgb, camera, maps: []
    )


def main(argv: list[str]) -> int:
    """Predict every image of the command line, or every frame of --data; those that fail are listed at the end."""
    arguments = parse_arguments(argv)
    if arguments.data:
        if (arguments.workers or 1) > 1:  # the command on Ray comes here for one worker alone
            raise UsageError(f"--workers {arguments.workers} needs Ray, which only `depthray predict` uses")
        return whole_sets.run(request_of_set(arguments))
    return _predict_images(arguments)


def request_of_set(arguments: argparse.Namespace) -> SetRequest:
    """What a command line with --data asks for."""
    return whole_sets.request_of(arguments, scales=tuple(_scales(arguments.scales)))


def _predict_images(arguments: argparse.Namespace) -> int:
    from depthray.imaging.camera import read_camera

    camera = read_camera(arguments.intrinsics) if arguments.intrinsics else None
    others, limits = further_inputs.given(arguments), _limits(arguments.max_megapixels)
    formats = _formats(arguments.format) if arguments.format else []
    scale = _scale(arguments.range) if arguments.range else None
    targets = find_targets(arguments.images, recursive=arguments.recursive)
    refuse_missing(targets)
    for text in targets.skipped:
        print(f"skipped: {text}", file=sys.stderr)
    if {"ply", "glb"} & {*formats} and camera is None:
        print(_ASSUMED, file=sys.stderr)
    failed = []
    with ExitStack() as stack:
        with Heartbeat(f"{arguments.url or arguments.checkpoint} to be loaded"):
            network = stack.enter_context(_network(arguments))
        further_inputs.check(others, network.inputs, optional=network.optional)  # a missing flag would fail every image
        shown = _fitting(formats, network)
        if arguments.min_confidence > 0 and network.has_confidence is False:
            raise UsageError(f"--min-confidence: {_NO_CONFIDENCE}")
        request = _Request(
            *(arguments.out, shown, shown if formats else ["colour"], camera, limits, others),
            *(scale, arguments.every, arguments.frames or 0, arguments.min_confidence),
        )
        for image, output in targets.found:
            try:
                print(_predict(network, image, output, request=request))
            # One bad photograph must not cost the others.
            except DataError as error:
                failed.append(str(error) if str(image) in str(error) else f"{image}: {error}")
    return _print_summary(failed, len(targets.found), arguments.out)


_NO_CONFIDENCE = "this network predicts no confidence; train one with model.uncertainty=laplace loss.laplace_nll=0.3"
_ASSUMED = (
    "WARNING: the camera is ASSUMED to see 60 degrees from left to right, as no --intrinsics fx,fy,cx,cy was given.\n"
    "WARNING: depths of the points are the network's, but widths, heights and angles are a guess."
)


@contextmanager
def _network(arguments: argparse.Namespace) -> Iterator[_Network]:
    """The network of a checkpoint, or the model of a server, whose existence is checked at once."""
    if not arguments.url:
        precision = arguments.precision or "fp32"
        predictor = load(
            arguments.checkpoint,
            device=arguments.device,
            precision=precision,
            trust=arguments.trust,
            flip=arguments.flip,
            scales=_scales(arguments.scales),
            tiles=arguments.tiles or 1,
        )
        inputs, meaning = predictor.recipe.data.inputs, MEANING[predictor.depth_kind]
        optional = predictor.optional_inputs
        yield _Network(
            inputs,
            optional,
            meaning,
            maps=lambda image, rgb, others: predictor.maps(rgb, **others),
            has_confidence=predictor.has_confidence,
            warnings=lambda rgb, camera, maps: predictor.warnings(rgb, camera=camera, depth=maps.get("depth")),
        )
        return
    from depthray.client.remote_predictor import connect

    key = arguments.key or os.environ.get(KEY, "")
    with connect(arguments.url, model=arguments.model or "", key=key) as remote:
        # Only networks that answer in metres are served.
        yield _Network(
            remote.inputs,
            (),
            MEANING["metric"],
            maps=lambda *given: _ask(remote, *given),
            warnings=lambda rgb, camera, maps: list(remote.warnings),
        )


def _ask(
    remote: Any, image: Path | None, rgb: NDArray[np.uint8], others: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """The maps of a server, which is sent a file as it is where it reads the format, else pixels (H,W,3)."""
    from depthray.imaging import photos

    answer: dict[str, NDArray[np.float32]] = remote.maps(image if image and photos.is_of_web(image) else rgb, **others)
    return answer


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
    for flag in ("device", "precision", "trust", "flip", "scales", "tiles") if arguments.url else ("model", "key"):
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
        "--range", metavar="NEAR,FAR", help="metres at the ends of the colours (default: of each photograph and video)"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video one frame in N (default: 1)")
    parser.add_argument("--frames", type=int, metavar="N", help="of a video or camera N frames at most (default: all)")
    parser.add_argument(
        "--intrinsics", metavar="fx,fy,cx,cy", help="pinhole camera in pixels of the upright image, for ply and glb"
    )
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


def _formats(text: str) -> list[str]:
    formats = list(dict.fromkeys(text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format: no format '{name}'{did_you_mean(name, FORMATS)}")
    return formats


def _fitting(formats: list[str], network: _Network) -> list[str]:
    """The formats asked for, or the usual ones. Raises UsageError for metres that the network does not predict."""
    metric = network.depth == MEANING["metric"]
    if refused := [name for name in formats if name in METRIC_FORMATS and not metric]:
        raise UsageError(
            f"--format {refused[0]} holds metres, and this network's depth is {network.depth}; use npy,colour"
        )
    return formats or ["png" if metric else "npy", "colour"]


def _scales(text: str | None) -> list[float]:
    """The flag --scales, `0.75,1.25` -> multiples of the network's size."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"--scales={text}: give numbers such as 0.75,1.25") from None


def _scale(text: str) -> ColourScale:
    """The flag --range, `near,far` in metres -> a scale of colours."""
    from depthray.imaging import sheets

    try:
        near, far = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--range={text}: give two numbers NEAR,FAR in metres, such as 0.5,8") from None
    if not (math.isfinite(far) and 0 <= near < far):
        raise UsageError(f"--range={text}: NEAR is at least 0, and FAR is larger")
    return sheets.scale_of(near, far)


def _limits(megapixels: float) -> PhotoLimits:
    from depthray.imaging import photos

    if not 0 < megapixels < 1e6:
        raise UsageError(f"--max-megapixels={megapixels:g}: give a number above 0")
    return photos.LIMITS._replace(pixels=int(megapixels * 1e6))


def _predict(network: _Network, image: Path, output: Path, *, request: _Request) -> str:
    """Predict one image or video and write its files at `output`, which has no suffix; returns the lines to print."""
    from depthray.imaging import photos, sheets, video

    unit = " m" if network.depth == MEANING["metric"] else ""
    if video.is_video(image):
        if request.others:
            raise DataError(f"{image}: --{next(iter(request.others))} is for photographs; a video has no such file")
        wanted = clips.ClipRequest(
            formats=request.clip_formats,
            camera=request.camera,
            limits=request.limits,
            scale=request.scale,
            every=request.every,
            most=request.frames,
            unit=unit,
            min_confidence=request.min_confidence,
        )
        return clips.predict_clip(image, request.out / output, wanted, _maps_of_clip(network, image, request.camera))
    rgb = photos.read(image, limits=request.limits)
    _warn_of_misfit(image, rgb, request.camera)
    name = output.parent / image.stem
    files = {key: further_inputs.find(path, name) for key, path in request.others.items()}
    others = {key: further_inputs.read(key, path, limits=request.limits) for key, path in files.items()}
    maps = network.maps(image, rgb, others)
    if request.min_confidence > 0 and "confidence" not in maps:
        raise DataError(f"{image}: --min-confidence: {_NO_CONFIDENCE}")
    _warn(image, network.warnings(rgb, request.camera, maps))
    stem, scale = request.out / output, request.scale
    if scale is None and "depth" in maps and "colour" in request.formats:
        scale = sheets.depth_scale([maps["depth"]])
    written = write_maps(
        *(stem, maps, request.formats),
        rgb=rgb,
        camera=request.camera,
        scale=scale,
        unit=unit,
        min_confidence=request.min_confidence,
    )
    return describe(image, maps, written, unit=unit, scale=scale)


def _warn_of_misfit(image: Path, rgb: NDArray[np.uint8], camera: Camera | None) -> None:
    from depthray.imaging.camera import describe_misfit

    if camera and (misfit := describe_misfit(camera.cx, camera.cy, height=rgb.shape[0], width=rgb.shape[1])):
        print(f"WARNING: {image}: --intrinsics: {misfit}", file=sys.stderr)


def _maps_of_clip(
    network: _Network, clip: Path, camera: Camera | None
) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
    """The maps of each frame of a video; the first is looked at for what is not as in training."""
    is_first = True

    def maps_of(rgb: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        nonlocal is_first
        maps = network.maps(None, rgb, {})
        if is_first:
            _warn(clip, network.warnings(rgb, camera, maps))
            is_first = False
        return maps

    return maps_of


def _warn(image: Path, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"WARNING: {image}: {sentence}", file=sys.stderr)


def _print_summary(failed: Sequence[str], total: int, out: Path) -> int:
    print(f"{total - len(failed)} of {total} images predicted, in {out}")
    for message in failed:
        print(f"depthray: {message}", file=sys.stderr)
    return DataError.exit_code if failed else 0
