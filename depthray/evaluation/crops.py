"""The part of an image that a protocol scores, as rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from depthray.errors import DataError

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Crop:
    """Rows and columns that are scored, in pixels of an image of a reference size."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    size: tuple[int, int]  # height, width of the reference

    def window(self, height: int, width: int) -> Window:
        """Rows and columns of an image of another size.

        The crop scales in proportion: a pixel is inside if its centre is. Of 240x320, nyu-bts keeps rows 22:235 and
        columns 20:300.
        """
        return _scale_span(self.rows, height, reference=self.size[0]), _scale_span(
            self.columns, width, reference=self.size[1]
        )


@dataclass(frozen=True)
class RelativeCrop:
    """Rows and columns that are scored, as shares of the image's sides, rounded down to whole pixels."""

    rows: tuple[float, float]
    columns: tuple[float, float]
    within: tuple[int, int] | None = None  # height, width of a window at the middle of the bottom, of which they are

    def window(self, height: int, width: int) -> Window:
        """Rows and columns of an image of that size. Raises DataError for one smaller than the window."""
        inner = self.within or (height, width)
        top, left = height - inner[0], (width - inner[1]) // 2
        if top < 0 or left < 0:
            raise DataError(
                f"the protocol scores a window of {inner[0]}x{inner[1]} pixels and this truth has {height}x{width}; "
                "use frames of native size, or kitti-garg"
            )
        return _scale_share(self.rows, inner[0], start=top), _scale_share(self.columns, inner[1], start=left)


def _scale_share(share: tuple[float, float], length: int, *, start: int) -> slice:
    return slice(start + int(share[0] * length), start + int(share[1] * length))


def _scale_span(span: tuple[int, int], length: int, *, reference: int) -> slice:
    """The pixels of `length` whose centres are in a span of `reference` pixels; in integers, so exactly."""
    # ceil(edge * length / reference - 1/2) without floats.
    start, stop = (-((reference - 2 * edge * length) // (2 * reference)) for edge in span)
    return slice(start, stop)
