"""What a network gets of images and further inputs as people have them, and its maps at the size of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from depthray.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from depthray.batch import Sample
    from depthray.config.sections import Data
    from depthray.imaging.camera import Camera

T = TypeVar("T")


def for_each(
    compute: Callable[[list[NDArray[np.uint8]], list[dict[str, Any]], list[Camera | None]], list[T]],
    image: Any,
    others: Mapping[str, Any],
    camera: Any,
) -> T | list[T]:
    """What is computed of an image of any kind, its further inputs and its camera; of several images a list."""
    from depthray.imaging import image_inputs

    several = image_inputs.as_list(image)
    images = _read_images([image] if several is None else several, numbered=several is not None)
    by_image = _by_image(others, len(images), alone=several is None)
    found = compute(images, by_image, _cameras(camera, len(images)))
    return found[0] if several is None else found


def _read_images(images: Sequence[Any], *, numbered: bool) -> list[NDArray[np.uint8]]:
    """Images of any kind -> (H,W,3) uint8 RGB each; a fault names the number of its image where there are several."""
    from depthray.imaging import image_inputs

    return [
        image_inputs.as_rgb(image, where=f"image {position}" if numbered else "image")
        for position, image in enumerate(images)
    ]


def _by_image(others: Mapping[str, Any], count: int, *, alone: bool) -> list[dict[str, Any]]:
    """The further inputs of each image, from one of each kind or, of several images, a sequence of each kind."""
    if alone:
        return [dict(others)]
    for key, values in others.items():
        if len(values) != count:
            raise UsageError(f"{key}: {len(values)} for {count} images; give one for each")
    return [{key: values[position] for key, values in others.items()} for position in range(count)]


def _cameras(camera: Any, count: int) -> list[Camera | None]:
    """The camera of each of so many images, from one for all of them or a sequence of one for each."""
    import numpy as np

    from depthray.imaging.camera import as_camera

    if camera is None:
        return [None] * count
    is_sequence = isinstance(camera, Sequence | np.ndarray) and len(camera) > 0
    if is_sequence and np.shape(camera[0]) in ((), (3,)):  # a number, or the row of a matrix
        return [as_camera(camera)] * count
    if not is_sequence or len(camera) != count:
        raise UsageError(f"camera: give fx, fy, cx, cy or a matrix (3,3), or one of these for each of {count} images")
    return [as_camera(each) for each in camera]


def prepare(
    rgb: NDArray[np.uint8], others: Mapping[str, NDArray[Any]], section: Data, *, camera: Camera | None = None
) -> Sample:
    """(H,W,3) uint8 RGB and further inputs (H,W) -> the sample of (h,w) that a network of this section gets.

    `camera` is in pixels of the image. Raises UsageError without one for a network that needs it.
    """
    from depthray.data.resize import resize_for_inference

    sample = _sample(rgb, others, section.inputs)
    if section.canonical_focal > 0:
        if camera is None:
            # That of the training frames would be a guess.
            raise UsageError(
                "this network needs the camera of the image (data.canonical_focal): give --intrinsics fx,fy,cx,cy, "
                "camera= in Python, fx and the like in a request"
            )
        sample["intrinsics"] = camera.matrix()
    return resize_for_inference(sample, section)


def restore(maps: Mapping[str, NDArray[np.float32]], size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Maps (h,w) of a network -> (H,W) of the photograph, as `imaging.sheets.resize_map` resizes them."""
    from depthray.imaging import sheets

    return {key: sheets.resize_map(value, size) for key, value in maps.items()}


def _sample(rgb: Any, others: Mapping[str, Any], inputs: tuple[str, ...]) -> Sample:
    """The inputs of one image, checked: what is missing, unknown or of another size is named."""
    import numpy as np

    sample: dict[str, Any] = {"image": colours("image", rgb)}
    missing = [key for key in inputs if key not in ("image", *others)]
    unknown = [key for key in others if key not in inputs]
    if missing or unknown:
        fault = f"needs {', '.join(missing)} too" if missing else f"does not take {', '.join(unknown)}"
        raise UsageError(f"this network {fault}; its inputs are {', '.join(inputs)}")
    for key, values in others.items():
        # The dtypes that a source gives, so that resizing treats a map as it was treated in training.
        kind = np.float32 if key == "sparse" else np.uint8 if key == "mask" else np.int32
        sample[key] = colours(key, values) if key == "background" else _integer_map(key, values).astype(kind)
        if sample[key].shape[:2] != rgb.shape[:2]:
            size, wanted = sample[key].shape[:2], rgb.shape[:2]
            raise DataError(f"{key} is {size[1]}x{size[0]} but the image is {wanted[1]}x{wanted[0]}; give equal sizes")
    return sample  # type: ignore[return-value]


def colours(key: str, rgb: Any) -> NDArray[np.uint8]:
    """(H,W,3) uint8 RGB, checked."""
    import numpy as np

    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        what = f"{rgb.dtype} of shape {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise DataError(f"an {key} is a (H,W,3) uint8 RGB array, this is {what}")
    return rgb


def _integer_map(key: str, values: Any) -> NDArray[Any]:
    """(H,W) whole numbers, of `sparse` metres with 0 for what is no distance; checked."""
    import numpy as np

    wanted = "fiu" if key == "sparse" else "iub"
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in wanted:
        what = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{key} is a (H,W) array of {'metres' if key == 'sparse' else 'whole numbers'}, this is {what}")
    if key == "sparse":
        # What a sensor writes where it has no distance: NaN, infinity or a negative number.
        return np.where(np.isfinite(values) & (values > 0), values, 0)
    return values
