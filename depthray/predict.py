"""A checkpoint turns photographs into depth in metres.

from depthray import load
depth = load("runs/x").predict(rgb)     # (H,W,3) uint8 -> (H,W) float32 metres
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.errors import CheckpointError, DataError, ResourceError, UsageError, did_you_mean

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from depthray.export import Camera
    from depthray.photo import Limits
    from depthray.sections import Recipe

FORMATS = {"png": ".depth.png", "npy": ".depth.npy", "colour": ".colour.png", "ply": ".ply"}


class Predictor:
    """A trained network with the recipe it was trained by. Made by `load`."""

    def __init__(self, model: nn.Module, recipe: Recipe, *, device: torch.device) -> None:
        import torch

        self.recipe = recipe
        self.device = device
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)

    def predict(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H,W,3) uint8 RGB, upright -> (H,W) float32 metres along the optical axis.

        The network sees the image at the size it was trained and evaluated at; its depth is brought back bilinearly.
        """
        import torch
        from torch.nn import functional as F

        from depthray import models
        from depthray.batch import collate, to_device
        from depthray.data.resize import resize

        _check_image(rgb)
        data = self.recipe.data
        batch = collate([resize({"image": rgb}, data.size)])
        batch = to_device(batch, self.device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.inference_mode():
            depth = models.run(self.model, batch)["depth"].float()
            depth = F.interpolate(depth, rgb.shape[:2], mode="bilinear", align_corners=False)
        metres: NDArray[np.float32] = depth[0, 0].cpu().numpy()
        return metres


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Predictor:
    """The predictor of a checkpoint, or of a run's best checkpoint; on the GPU where there is one."""
    from depthray import checkpoint, models

    where = _device(device)
    contents = checkpoint.load(checkpoint.resolve(Path(path)))
    data = contents.recipe.data
    if data.inputs != ("image",):
        raise CheckpointError(f"{path}: this network needs {', '.join(data.inputs)}; predict has an image only")
    model = models.build_model(contents.recipe.model, data.inputs, pretrained=False)
    try:
        model.load_state_dict(contents.weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights do not fit the recipe: {' '.join(str(error).split())[:300]}") from None
    return Predictor(model, contents.recipe, device=where)


def _device(name: str | None) -> torch.device:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UsageError(f"--device: no device '{name}'; give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device={name}: this machine has {torch.cuda.device_count()} GPUs PyTorch can use")
    try:
        torch.zeros(1, device=device).tolist()
    except RuntimeError:
        raise UsageError(f"--device={name}: PyTorch cannot compute on it here; give cpu, cuda or cuda:N") from None
    return device


def _check_image(rgb: Any) -> None:
    import numpy as np

    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        what = f"{rgb.dtype} of shape {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise DataError(f"an image is a (H,W,3) uint8 RGB array, this is {what}")


class _Wish(NamedTuple):
    """What the command line asks to be made of every image."""

    out: Path
    formats: list[str]
    camera: Camera | None
    limits: Limits


def main(argv: list[str]) -> int:
    """`depthray predict`: every image of the command line to files; those that fail are listed at the end."""
    arguments = _parser().parse_args(argv)
    camera = _camera(arguments.intrinsics) if arguments.intrinsics else None
    wish = _Wish(arguments.out, _formats(arguments.format), camera, _limits(arguments.max_megapixels))
    images = list(_targets(arguments.images, recursive=arguments.recursive))
    if "ply" in wish.formats and camera is None:
        print(_ASSUMED, file=sys.stderr)
    predictor = load(arguments.checkpoint, device=arguments.device)
    failed = []
    for image, place in images:
        try:
            print(_predict(predictor, image, place, wish=wish))
        except DataError as error:
            failed.append(str(error))
    return _farewell(failed, len(images), arguments.out)


_ASSUMED = (
    "WARNING: the camera is ASSUMED to see 60 degrees from left to right, as no --intrinsics fx,fy,cx,cy was given.\n"
    "WARNING: depths in the .ply are the network's, but widths, heights and angles are a guess."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray predict", description="Depth of photographs, in metres, at their own size."
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder (its best checkpoint)")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE|FOLDER", help="JPEG, PNG or WebP; EXIF is obeyed"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="output folder (default: predictions)")
    parser.add_argument(
        "--format",
        default="png,colour",
        help="of png (16 bit, millimetres, 0 = invalid), npy (float32 metres), colour, ply (default: png,colour)",
    )
    parser.add_argument(
        "--intrinsics", metavar="fx,fy,cx,cy", help="pinhole camera in pixels of the upright image, for ply"
    )
    parser.add_argument("--recursive", action="store_true", help="folders with all below them")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
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


def _camera(text: str) -> Camera:
    import math

    from depthray.export import Camera

    try:
        camera = Camera(*(float(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise UsageError(f"--intrinsics={text}: give four numbers fx,fy,cx,cy in pixels") from None
    if not all(math.isfinite(number) for number in camera) or min(camera.fx, camera.fy) <= 0:
        raise UsageError(f"--intrinsics={text}: fx and fy must be positive, and all four finite")
    return camera


def _limits(megapixels: float) -> Limits:
    from depthray import photo

    if not 0 < megapixels < 1e6:
        raise UsageError(f"--max-megapixels={megapixels:g}: give a number above 0")
    return photo.LIMITS._replace(pixels=int(megapixels * 1e6))


def _targets(paths: Sequence[Path], *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Each image with the place of its outputs below the output folder, without a suffix; no two places are equal."""
    found = {image: place for path in paths for image, place in _listed(path, recursive=recursive)}
    if not found:
        raise DataError(f"no JPEG, PNG or WebP image in {', '.join(map(str, paths))}")
    twice = [str(place) for place, count in Counter(found.values()).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is in two of the folders; give their common folder with --recursive instead")
    stems = Counter(place.with_suffix("") for place in found.values())
    for image, place in found.items():
        yield image, place if stems[place.with_suffix("")] > 1 else place.with_suffix("")


def _listed(path: Path, *, recursive: bool) -> Iterable[tuple[Path, Path]]:
    """The images of a path, each with its place relative to it; earlier outputs of ours are no inputs."""
    from depthray import photo

    if not path.is_dir():
        return [(path, Path(path.name))]
    inside = sorted(path.rglob("*") if recursive else path.iterdir())
    return [
        (image, image.relative_to(path))
        for image in inside
        if image.suffix.lower() in photo.SUFFIXES and not image.name.endswith(tuple(FORMATS.values()))
    ]


def _predict(predictor: Predictor, image: Path, place: Path, *, wish: _Wish) -> str:
    """Predict one image and write its files; returns a line that says what was found and where it lies."""
    from depthray import photo

    rgb = photo.read(image, limits=wish.limits)
    depth = predictor.predict(rgb)
    stem = wish.out / place
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        files = [_write(name, stem, depth, rgb=rgb, camera=wish.camera) for name in wish.formats]
    except OSError as error:
        raise ResourceError(f"{stem}: cannot be written: {error.strerror}; choose another --out") from None
    return _line(image, depth, files)


def _write(name: str, stem: Path, depth: NDArray[np.float32], *, rgb: NDArray[np.uint8], camera: Camera | None) -> Path:
    from depthray import export

    path = stem.with_name(stem.name + FORMATS[name])
    if name == "ply":
        note = "" if camera else "camera ASSUMED, 60 degrees from left to right"
        return export.point_cloud(path, depth, rgb, camera=camera or export.assumed_camera(*depth.shape), note=note)
    write = {"png": export.depth_png, "npy": export.depth_npy, "colour": export.colour_png}[name]
    return write(path, depth)


def _line(image: Path, depth: NDArray[np.float32], files: Sequence[Path]) -> str:
    from depthray import picture

    height, width = depth.shape
    near, far, _ = picture.scale([depth])
    colours = {file: f"  (red {near:g} m to blue {far:g} m)" for file in files if file.name.endswith(FORMATS["colour"])}
    lines = [f"{image}  {width}x{height}  {depth.min():.2f} to {depth.max():.2f} m"]
    return "\n".join([*lines, *(f"  -> {file}{colours.get(file, '')}" for file in files)])


def _farewell(failed: Sequence[str], total: int, out: Path) -> int:
    print(f"{total - len(failed)} of {total} images predicted, in {out}")
    for message in failed:
        print(f"depthray: {message}", file=sys.stderr)
    return DataError.exit_code if failed else 0
