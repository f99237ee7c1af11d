"""The files that `depthray predict` writes of one image, and the line that it prints about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.errors import ResourceError

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    import numpy as np
    from numpy.typing import NDArray

    from depthray.imaging.camera import Camera
    from depthray.imaging.sheets import ColourScale

# Two suffixes, by which outputs among images are recognised and not predicted again.
FORMATS = {
    **{"png": ".depth.png", "npy": ".depth.npy", "npz": ".depth.npz", "colour": ".colour.png"},
    **{"ply": ".ply", "glb": ".glb"},
}
METRIC_FORMATS = ("png", "ply", "glb")  # those that hold metres
MASK, CONFIDENCE = ".mask.png", ".confidence.png"
VIDEO, TIMES = ".colour.mp4", ".frames.csv"  # of a video: its depth in colours, and the time of each frame
OUTPUTS = (*FORMATS.values(), MASK, CONFIDENCE, VIDEO, TIMES)


def write_maps(
    stem: Path,
    maps: Mapping[str, NDArray[np.float32]],
    formats: Sequence[str],
    *,
    rgb: NDArray[np.uint8],
    camera: Camera | None,
    scale: ColourScale | None,
    unit: str,
    min_confidence: float = 0.0,
    keep_invalid: bool = False,
) -> list[Path]:
    """Maps (H,W) of an image (H,W,3) -> its files at `stem`, which has no suffix.

    `scale` is that of the colours; None: from the nearest to the farthest depth of the image. Pixels of less than
    `min_confidence` become no points. Without `keep_invalid` depth is 0 where there is likely none, but in npz, which
    has that map besides.
    """
    from depthray.imaging import export

    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = [_write_mask(stem, maps["mask"])] if "mask" in maps else []
        if "depth" in maps:
            shown = maps if keep_invalid else {**maps, "depth": shown_depth(maps)}
            written += [
                _write(name, stem, maps if name == "npz" else shown, rgb, camera, scale, unit, min_confidence)
                for name in formats
            ]
            if "png" in formats and "confidence" in maps:
                path = stem.with_name(stem.name + CONFIDENCE)
                written.append(export.write_confidence_png(path, maps["confidence"]))
    except OSError as error:
        raise ResourceError(f"{stem}: cannot be written: {error.strerror}; choose another --out") from None
    return written


def shown_depth(maps: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """-> (H,W) depth, 0 where the network says that there is none"""
    from depthray.imaging import export

    return export.valid_only(maps["depth"], maps.get("valid"))


def _write_mask(stem: Path, mask: NDArray[np.float32]) -> Path:
    """(H,W) probability -> an 8-bit PNG, 255 where the foreground is likelier than not."""
    import cv2

    path = stem.with_name(stem.name + MASK)
    _, data = cv2.imencode(".png", (mask > 0.5).astype("uint8") * 255)
    path.write_bytes(data.tobytes())
    return path


def _write(
    name: str,
    stem: Path,
    maps: Mapping[str, NDArray[np.float32]],
    rgb: NDArray[np.uint8],
    camera: Camera | None,
    scale: ColourScale | None,
    unit: str,
    min_confidence: float,
) -> Path:
    from depthray.imaging import export
    from depthray.imaging.camera import assumed_camera

    path, depth = stem.with_name(stem.name + FORMATS[name]), maps["depth"]
    if name == "npz":
        return export.write_npz(path, maps)
    if name in ("ply", "glb"):
        note = "" if camera else "camera ASSUMED, 60 degrees from left to right"
        known, confidence = camera or assumed_camera(*depth.shape), maps.get("confidence")
        depth = export.confident(depth, confidence, min_confidence)
        if name == "ply":
            return export.write_ply(path, depth, rgb, camera=known, note=note)
        return export.write_glb(path, depth, rgb, camera=known, note=note, confidence=confidence)
    if name == "colour":
        return export.write_colour_png(path, depth, scale=scale, unit=unit)
    return (export.write_depth_png if name == "png" else export.write_depth_npy)(path, depth)


def describe(
    image: Path, maps: Mapping[str, NDArray[np.float32]], files: Sequence[Path], *, unit: str, scale: ColourScale | None
) -> str:
    """The lines about an image: its size, range of depth, and files. `scale` is that of the colours."""
    height, width = next(iter(maps.values())).shape
    facts, colours = [], {}
    if "depth" in maps:
        depth = maps["depth"]
        inside = depth[depth > 0] if "valid" in maps else depth
        facts.append(f"{inside.min():.2f} to {inside.max():.2f}{unit}" if inside.size else "no depth anywhere")
        tail = f"  (red {scale.near:g}{unit} to blue {scale.far:g}{unit})" if scale else ""
        colours = {file: tail for file in files if file.name.endswith(FORMATS["colour"])}
    if "confidence" in maps:
        facts.append(f"confidence {maps['confidence'].mean():.2f}")
    if "valid" in maps:
        facts.append(f"valid {(maps['valid'] >= 0.5).mean():.1%}")
    if "mask" in maps:
        facts.append(f"foreground {(maps['mask'] > 0.5).mean():.1%}")
    lines = [f"{image}  {width}x{height}  {', '.join(facts)}"]
    return "\n".join([*lines, *(f"  -> {file}{colours.get(file, '')}" for file in files)])
