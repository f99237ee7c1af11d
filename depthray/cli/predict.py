"""`depthray predict`: images of the command line to files."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.cli.flags import further_inputs, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import DataError, ResourceError, UsageError, count_of, did_you_mean
from depthray.evaluation.protocols import MEANING
from depthray.predict import load
from depthray.waiting import Heartbeat

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    import numpy as np
    from numpy.typing import NDArray

    from depthray.imaging.camera import Camera
    from depthray.imaging.photos import PhotoLimits

# Two suffixes, by which outputs among images are recognised and not predicted again.
FORMATS = {"png": ".depth.png", "npy": ".depth.npy", "colour": ".colour.png", "ply": ".ply", "glb": ".glb"}
METRIC_FORMATS = ("png", "ply", "glb")  # those that hold metres
MASK = ".mask.png"
KINDS = "JPEG, PNG or WebP"
CONVERT = "convert others first, e.g. `magick mogrify -format jpg *.heic`"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
SKIPPED_NAMES = 5  # files of a folder that are named
KEY = "DEPTHRAY_API_KEY"
Connect = Callable[..., AbstractContextManager[Any]]  # (url, model=, key=) -> what has `inputs` and `maps`


class _Request(NamedTuple):
    """What the command line asks for, the same for every image."""

    out: Path
    formats: list[str]
    camera: Camera | None
    limits: PhotoLimits
    others: dict[str, Path]


class _Network(NamedTuple):
    """What turns an image into maps, here or on a server."""

    inputs: tuple[str, ...]
    depth: str  # what its numbers are: "metres", or what they are instead
    maps: Callable[[Path, NDArray[np.uint8], Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]


def main(argv: list[str], connect: Connect | None = None) -> int:
    """Predict every image of the command line into files; those that fail are listed at the end.

    `connect` opens the model of a server for --url; `serve` is built upon this package and passes it in.
    """
    from depthray.imaging.camera import read_camera

    arguments = parse_arguments(argv)
    camera = read_camera(arguments.intrinsics) if arguments.intrinsics else None
    others, limits = further_inputs.given(arguments), _limits(arguments.max_megapixels)
    formats = _formats(arguments.format) if arguments.format else []
    images = list(_targets(arguments.images, recursive=arguments.recursive))
    _refuse_missing([image for image, _ in images])
    for text in _skipped(arguments.images, {image for image, _ in images}, recursive=arguments.recursive):
        print(f"skipped: {text}", file=sys.stderr)
    if {"ply", "glb"} & {*formats} and camera is None:
        print(_ASSUMED, file=sys.stderr)
    failed = []
    with ExitStack() as stack:
        with Heartbeat(f"{arguments.url or arguments.checkpoint} to be loaded"):
            network = stack.enter_context(_network(arguments, connect))
        further_inputs.check(others, network.inputs)  # a missing flag would fail every image
        request = _Request(arguments.out, _fitting(formats, network), camera, limits, others)
        for image, output in images:
            try:
                print(_predict(network, image, output, request=request))
            # One bad photograph must not cost the others.
            except DataError as error:
                failed.append(str(error) if str(image) in str(error) else f"{image}: {error}")
    return _print_summary(failed, len(images), arguments.out)


def _refuse_missing(images: Sequence[Path]) -> None:
    """Raise DataError where no image exists, before the network is loaded for none of them."""
    if not any(os.path.lexists(image) for image in images):
        others = f" (nor any of {len(images) - 1} others)" if len(images) > 1 else ""
        raise DataError(f"{images[0]}: no such file{others}")


def _skipped(paths: Sequence[Path], images: Collection[Path], *, recursive: bool) -> list[str]:
    """A text for each folder with files that are no images of a known kind; outputs of an earlier call do not count."""
    outputs, texts = (*FORMATS.values(), MASK), []
    for folder in (path for path in paths if path.is_dir()):
        files = (path for path in sorted(folder.rglob("*") if recursive else folder.iterdir()) if path.is_file())
        names = [path.name for path in files if path not in images and not path.name.endswith(outputs)]
        if names:
            named = ", ".join(names[:SKIPPED_NAMES]) + (", ..." if len(names) > SKIPPED_NAMES else "")
            texts.append(f"{count_of(len(names), 'file')} of {folder}, not {KINDS}: {named}")
    return texts


_ASSUMED = (
    "WARNING: the camera is ASSUMED to see 60 degrees from left to right, as no --intrinsics fx,fy,cx,cy was given.\n"
    "WARNING: depths of the points are the network's, but widths, heights and angles are a guess."
)


@contextmanager
def _network(arguments: argparse.Namespace, connect: Connect | None) -> Iterator[_Network]:
    """The network of a checkpoint, or the model of a server, whose existence is checked at once."""
    if not arguments.url:
        predictor = load(arguments.checkpoint, device=arguments.device, trust=arguments.trust)
        inputs, meaning = predictor.recipe.data.inputs, MEANING[predictor.depth_kind]
        yield _Network(inputs, meaning, lambda image, rgb, others: predictor.maps(rgb, **others))
        return
    assert connect, "--url is for the command `depthray predict`, which passes in how to connect"
    key = arguments.key or os.environ.get(KEY, "")
    with connect(arguments.url, model=arguments.model or "", key=key) as remote:
        # Only networks that answer in metres are served.
        yield _Network(remote.inputs, MEANING["metric"], lambda image, rgb, others: remote.maps(image, **others))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; with --url every positional argument is an image."""
    arguments = build_parser().parse_intermixed_args(argv)
    for flag in ("device", "trust") if arguments.url else ("model", "key"):
        if getattr(arguments, flag):
            raise UsageError(f"--{flag} {'cannot be combined with' if arguments.url else 'needs'} --url")
    if arguments.url:
        arguments.images = [*filter(None, [arguments.checkpoint]), *arguments.images]
    elif (
        arguments.checkpoint
        and arguments.checkpoint.suffix.lower() in IMAGE_SUFFIXES
        and arguments.checkpoint.is_file()
    ):
        raise UsageError(f"{arguments.checkpoint} is an image; give the checkpoint or run first, and images after it")
    elif not arguments.checkpoint:
        raise UsageError("no checkpoint is given; name a checkpoint or a run, and images after it")
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray predict`."""
    images = "IMAGE|FOLDER [IMAGE|FOLDER ...] [options]"
    parser = CommandParser(
        prog="depthray predict",
        usage=f"depthray predict CHECKPOINT|RUN {images}\n       depthray predict --url http://HOST:8000 {images}",
        description="Depth of photographs, in metres, at their own size.",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="a checkpoint, an export, or a run (its best one)")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE|FOLDER", help="JPEG, PNG or WebP; EXIF orientation is applied"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="output folder (default: predictions)")
    parser.add_argument(
        "--format",
        help="of png (16 bit, millimetres, 0 = invalid), npy (float32 metres), colour, ply, glb (default: png,colour; "
        "npy,colour of a network whose depth is not in metres)",
    )
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
    trust.add_flag(parser)
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=64,
        metavar="N",
        help="refuse larger images before decoding (default: 64)",
    )
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


def _limits(megapixels: float) -> PhotoLimits:
    from depthray.imaging import photos

    if not 0 < megapixels < 1e6:
        raise UsageError(f"--max-megapixels={megapixels:g}: give a number above 0")
    return photos.LIMITS._replace(pixels=int(megapixels * 1e6))


def _targets(paths: Sequence[Path], *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Each image with the path of its outputs below the output folder, without a suffix; no two are equal."""
    outputs = {image: output for path in paths for image, output in _images_of(path, recursive=recursive)}
    if not outputs:
        others = "".join(f"; skipped: {text}" for text in _skipped(paths, (), recursive=recursive))
        raise DataError(f"no {KINDS} image in {', '.join(map(str, paths))}{others and f'{others}; {CONVERT}'}")
    twice = [str(output) for output, count in Counter(outputs.values()).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is in two of the folders; give their common folder with --recursive instead")
    stems = Counter(output.with_suffix("") for output in outputs.values())
    for image, output in outputs.items():  # a.jpg and a.png keep their suffixes, which else would share outputs
        yield image, output if stems[output.with_suffix("")] > 1 else output.with_suffix("")


def _images_of(path: Path, *, recursive: bool) -> Iterable[tuple[Path, Path]]:
    """The images of a path, each with its path relative to it; outputs of an earlier call are no inputs."""
    from depthray.imaging import photos

    if not path.is_dir():
        return [(path, Path(path.name))]
    inside = sorted(path.rglob("*") if recursive else path.iterdir())
    return [
        (image, image.relative_to(path))
        for image in inside
        if image.suffix.lower() in photos.SUFFIXES and not image.name.endswith((*FORMATS.values(), MASK))
    ]


def _predict(network: _Network, image: Path, output: Path, *, request: _Request) -> str:
    """Predict one image and write its files at `output`, which has no suffix; returns the lines to print."""
    from depthray.imaging import photos

    rgb = photos.read(image, limits=request.limits)
    _warn_of_misfit(image, rgb, request.camera)
    name = output.parent / image.stem
    files = {key: further_inputs.find(path, name) for key, path in request.others.items()}
    others = {key: further_inputs.read(key, path, limits=request.limits) for key, path in files.items()}
    maps = network.maps(image, rgb, others)
    stem, unit = request.out / output, " m" if network.depth == MEANING["metric"] else ""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = [_write_mask(stem, maps["mask"])] if "mask" in maps else []
        if "depth" in maps:
            written += [
                _write(name, stem, maps["depth"], rgb=rgb, camera=request.camera, unit=unit) for name in request.formats
            ]
    except OSError as error:
        raise ResourceError(f"{stem}: cannot be written: {error.strerror}; choose another --out") from None
    return _line(image, maps, written, unit=unit)


def _warn_of_misfit(image: Path, rgb: NDArray[np.uint8], camera: Camera | None) -> None:
    from depthray.imaging.camera import describe_misfit

    if camera and (misfit := describe_misfit(camera.cx, camera.cy, height=rgb.shape[0], width=rgb.shape[1])):
        print(f"WARNING: {image}: --intrinsics: {misfit}", file=sys.stderr)


def _write_mask(stem: Path, mask: NDArray[np.float32]) -> Path:
    """(H,W) probability -> an 8-bit PNG, 255 where the foreground is likelier than not."""
    import cv2

    path = stem.with_name(stem.name + MASK)
    _, data = cv2.imencode(".png", (mask > 0.5).astype("uint8") * 255)
    path.write_bytes(data.tobytes())
    return path


def _write(
    name: str, stem: Path, depth: NDArray[np.float32], *, rgb: NDArray[np.uint8], camera: Camera | None, unit: str
) -> Path:
    from depthray.imaging import export
    from depthray.imaging.camera import assumed_camera

    path = stem.with_name(stem.name + FORMATS[name])
    if name in ("ply", "glb"):
        note = "" if camera else "camera ASSUMED, 60 degrees from left to right"
        points = export.write_ply if name == "ply" else export.write_glb
        return points(path, depth, rgb, camera=camera or assumed_camera(*depth.shape), note=note)
    if name == "colour":
        return export.write_colour_png(path, depth, unit=unit)
    return {"png": export.write_depth_png, "npy": export.write_depth_npy}[name](path, depth)


def _line(image: Path, maps: dict[str, NDArray[np.float32]], files: Sequence[Path], *, unit: str) -> str:
    from depthray.imaging import sheets

    height, width = next(iter(maps.values())).shape
    facts, colours = [], {}
    if "depth" in maps:
        depth = maps["depth"]
        near, far, _ = sheets.depth_scale([depth])
        facts.append(f"{depth.min():.2f} to {depth.max():.2f}{unit}")
        tail = f"  (red {near:g}{unit} to blue {far:g}{unit})"
        colours = {file: tail for file in files if file.name.endswith(FORMATS["colour"])}
    if "mask" in maps:
        facts.append(f"foreground {(maps['mask'] > 0.5).mean():.1%}")
    lines = [f"{image}  {width}x{height}  {', '.join(facts)}"]
    return "\n".join([*lines, *(f"  -> {file}{colours.get(file, '')}" for file in files)])


def _print_summary(failed: Sequence[str], total: int, out: Path) -> int:
    print(f"{total - len(failed)} of {total} images predicted, in {out}")
    for message in failed:
        print(f"depthray: {message}", file=sys.stderr)
    return DataError.exit_code if failed else 0
