"""What TensorBoard shows of a run: scalars, images, histograms and hyperparameters, all in the run's own directory.

`tensorboard --logdir RUN` (without --bind_all: it has no password).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from depthray.imaging import sheets

_FLUSH_SECONDS = 10  # a killed run loses at most this much of its curves


class Board:
    """The writer of one run directory, from `first_step` on.

    What an earlier process wrote about later steps is hidden, as these are trained again.
    """

    def __init__(self, directory: str | os.PathLike[str], *, first_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _leave_errors_to_the_caller()
        self._writer = SummaryWriter(os.fspath(directory), purge_step=first_step + 1, flush_secs=_FLUSH_SECONDS)
        self._first_step = first_step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point on the curve of each name; a name like `train/loss` is a curve of the group `train`."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)

    def contact_sheets(self, step: int, rows: Sequence[sheets.SheetRow], *, name: str = "validation") -> None:
        """A picture of each frame, by its id; give the same frames each time and their one scale stays the same."""
        depth = sheets.depth_scale(row.truth for row in rows if row.kind == "depth")
        for frame in dict.fromkeys(row.id for row in rows):
            own = [row for row in rows if row.id == frame]  # its depth and its mask
            self.image(step, f"{name}/{frame}", sheets.draw_sheet(own, depth=depth))

    def image(self, step: int, name: str, rgb: sheets.RgbImage) -> None:
        """(H,W,3) uint8 RGB -> an image on the board."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width, _ = rgb.shape
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=sheets.encode_png(rgb))
        self._summary(Summary(value=[Summary.Value(tag=name, image=shown)]), step)

    def histogram(self, step: int, name: str, values: ArrayLike, *, bins: int = 64) -> None:
        """Any array of numbers -> their distribution; those that are not finite are left out."""
        numbers = np.asarray(values, dtype=np.float64).ravel()
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            self._writer.add_histogram(name, numbers, step, bins=bins)

    def hparams(self, values: Mapping[str, Any], metrics: Iterable[str]) -> None:
        """The recipe as dotted key -> value, and the names of the scalars that rank runs in the HParams tab.

        Written as protos into this run's file: `SummaryWriter.add_hparams` would open a second run below it.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {key: _plain(value) for key, value in values.items()}
        # Of the metrics only the names are written: the tab reads the values from the scalars.
        for proto in hparams(plain, dict.fromkeys(metrics, 0.0)):  # type: ignore[no-untyped-call]
            self._summary(proto, self._first_step)

    def flush(self) -> None:
        """Write out what is still in memory."""
        self._writer.flush()

    def close(self) -> None:
        """Write everything out and end the event file."""
        self._writer.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _summary(self, proto: Any, step: int) -> None:
        # There is no public way to write a summary that is already made.
        self._writer._get_file_writer().add_summary(proto, step)  # type: ignore[no-untyped-call]


def _leave_errors_to_the_caller() -> None:
    """Print no traceback of a disk error in TensorBoard's thread: it is raised again where the writer is used."""
    if getattr(threading.excepthook, "func", None) is not _unless_raised_again:
        threading.excepthook = partial(_unless_raised_again, threading.excepthook)


def _unless_raised_again(hook: Callable[[threading.ExceptHookArgs], object], args: threading.ExceptHookArgs) -> None:
    # By its name, as the class is private to TensorBoard. Errors that are none of the disk stay visible.
    if not (type(args.thread).__name__ == "_AsyncWriterThread" and issubclass(args.exc_type, OSError)):
        hook(args)


def _plain(value: Any) -> str | float | None:
    """A value as the HParams tab can show it: numbers stay numbers, truth values and lists become text."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
