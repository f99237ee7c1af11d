"""`depthray predict`: images of the command line to files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.cli.flags import camera_flags, further_inputs
from depthray.cli.predicting import clips, predict_flags, whole_sets
from depthray.cli.predicting.depth_files import METRIC_FORMATS, describe, shown_depth, write_maps
from depthray.cli.predicting.image_targets import find_targets, refuse_missing
from depthray.errors import DataError, UsageError
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
    keep_invalid: bool


class _Network(NamedTuple):
    """What turns an image into maps, here or on a server."""

    inputs: tuple[str, ...]
    optional: tuple[str, ...]  # those of the inputs that it can do without
    depth: str  # what its numbers are: "metres", or what they are instead
    # The file of the image, None for a frame of a video; its pixels; further inputs; its camera.
    maps: Callable[
        [Path | None, NDArray[np.uint8], Mapping[str, NDArray[Any]], Camera | None], dict[str, NDArray[np.float32]]
    ]
    needs_camera: bool = False
    has_confidence: bool | None = None  # None: what a server has shows with its first answer
    # Its pixels, camera and maps that were predicted -> what of it is not as in training.
    warnings: Callable[[NDArray[np.uint8], Camera | None, Mapping[str, NDArray[np.float32]]], list[str]] = (
        lambda rgb, camera, maps: []
    )


def main(argv: list[str]) -> int:
    """Predict every image of the command line, or every frame of --data; those that fail are listed at the end."""
    arguments = predict_flags.parse_arguments(argv)
    if arguments.data:
        if (arguments.workers or 1) > 1:  # the command on Ray comes here for one worker alone
            raise UsageError(f"--workers {arguments.workers} needs Ray, which only `depthray predict` uses")
        return whole_sets.run(request_of_set(arguments))
    return _predict_images(arguments)


def request_of_set(arguments: argparse.Namespace) -> SetRequest:
    """What a command line with --data asks for."""
    return whole_sets.request_of(arguments, scales=tuple(predict_flags.scales_of(arguments.scales)))


def _predict_images(arguments: argparse.Namespace) -> int:
    camera = camera_flags.given(arguments)
    others, limits = further_inputs.given(arguments), predict_flags.photo_limits(arguments.max_megapixels)
    formats = predict_flags.formats_of(arguments.format) if arguments.format else []
    scale = predict_flags.colour_scale_of(arguments.range) if arguments.range else None
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
        if network.needs_camera and camera is None:
            raise UsageError(
                "this network needs the camera of the images (data.canonical_focal): give --intrinsics fx,fy,cx,cy in "
                "pixels of the upright image"
            )
        shown = _fitting(formats, network)
        if arguments.min_confidence > 0 and network.has_confidence is False:
            raise UsageError(f"--min-confidence: {_NO_CONFIDENCE}")
        request = _Request(
            *(arguments.out, shown, shown if formats else ["colour"], camera, limits, others),
            *(scale, arguments.every, arguments.frames or 0, arguments.min_confidence, arguments.keep_invalid),
        )
        for image, output in targets.found:
            try:
                print(_predict(network, image, output, request=request))
            # One bad photograph must not cost the others.
            except DataError as error:
                failed.append(str(error) if str(image) in str(error) else f"{image}: {error}")
    return _print_summary(failed, len(targets.found), arguments.out)


_NO_CONFIDENCE = (
    "this network predicts no confidence; train one with model.uncertainty=laplace loss.laplace_nll=0.3, or give "
    "--confidence flip"
)
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
            scales=predict_flags.scales_of(arguments.scales),
            tiles=arguments.tiles or 1,
            confidence=arguments.confidence,
            ensemble=arguments.ensemble,
        )
        inputs, meaning = predictor.recipe.data.inputs, MEANING[predictor.depth_kind]
        optional = predictor.optional_inputs
        yield _Network(
            inputs,
            optional,
            meaning,
            maps=lambda image, rgb, others, camera: predictor.maps(rgb, camera=camera, **others),
            needs_camera=predictor.needs_camera,
            has_confidence=predictor.has_confidence,
            warnings=lambda rgb, camera, maps: predictor.warnings(rgb, camera=camera, depth=maps.get("depth")),
        )
        return
    from depthray.client.remote_predictor import connect

    key = arguments.key or os.environ.get(predict_flags.KEY, "")
    with connect(arguments.url, model=arguments.model or "", key=key) as remote:
        # Only networks that answer in metres are served.
        yield _Network(
            remote.inputs,
            (),
            MEANING["metric"],
            maps=lambda *given: _ask(remote, *given),
            needs_camera=remote.needs_camera,
            warnings=lambda rgb, camera, maps: list(remote.warnings),
        )


def _ask(
    remote: Any, image: Path | None, rgb: NDArray[np.uint8], others: Mapping[str, NDArray[Any]], camera: Camera | None
) -> dict[str, NDArray[np.float32]]:
    """The maps of a server, which is sent a file as it is where it reads the format, else pixels (H,W,3)."""
    from depthray.imaging import photos

    given = image if image and photos.is_of_web(image) else rgb
    answer: dict[str, NDArray[np.float32]] = remote.maps(given, camera=camera, **others)
    return answer


def _fitting(formats: list[str], network: _Network) -> list[str]:
    """The formats asked for, or the usual ones. Raises UsageError for metres that the network does not predict."""
    metric = network.depth == MEANING["metric"]
    if refused := [name for name in formats if name in METRIC_FORMATS and not metric]:
        raise UsageError(
            f"--format {refused[0]} holds metres, and this network's depth is {network.depth}; use npy,colour"
        )
    return formats or ["png" if metric else "npy", "colour"]


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
            keep_invalid=request.keep_invalid,
        )
        return clips.predict_clip(image, request.out / output, wanted, _maps_of_clip(network, image, request.camera))
    rgb = photos.read(image, limits=request.limits)
    _warn_of_misfit(image, rgb, request.camera)
    name = output.parent / image.stem
    files = {key: further_inputs.find(path, name) for key, path in request.others.items()}
    others = {key: further_inputs.read(key, path, limits=request.limits) for key, path in files.items()}
    maps = network.maps(image, rgb, others, request.camera)
    if request.min_confidence > 0 and "confidence" not in maps:
        raise DataError(f"{image}: --min-confidence: {_NO_CONFIDENCE}")
    _warn(image, network.warnings(rgb, request.camera, maps))
    stem, scale = request.out / output, request.scale
    shown = maps if request.keep_invalid or "depth" not in maps else {**maps, "depth": shown_depth(maps)}
    if scale is None and "depth" in maps and "colour" in request.formats:
        scale = sheets.depth_scale([shown["depth"]])
    written = write_maps(
        *(stem, maps, request.formats),
        rgb=rgb,
        camera=request.camera,
        scale=scale,
        unit=unit,
        min_confidence=request.min_confidence,
        keep_invalid=request.keep_invalid,
    )
    return describe(image, shown, written, unit=unit, scale=scale)


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
        maps = network.maps(None, rgb, {}, camera)
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
