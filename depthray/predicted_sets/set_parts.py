"""Parts of a predicted data set: each is written beside its place, moved there, and then recorded as finished.

A part without a record is predicted again, by whichever worker; its files replace those that a killed worker left.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from depthray.data.packing import NAME
from depthray.data.shards import index_files, remote_shards
from depthray.data.shards.writer import translate_write_errors
from depthray.data.source import Source
from depthray.errors import DataError
from depthray.predict import Predictor
from depthray.predicted_sets import bag_output, set_manifest
from depthray.predicted_sets.frame_stream import PredictedFrame, predict_frames
from depthray.predicted_sets.part_outputs import INDEX_COLUMNS, PartOutput, PngOutput, Row, ShardOutput
from depthray.predicted_sets.set_manifest import PARTS, STAGING
from depthray.predicted_sets.set_plan import BAGS, SetPlan, open_network
from depthray.storage.folders import AnyFolder, LocalFolder, open_folder

FAILED, INDEX = "failed.csv", "index.csv"


class PartRecord(NamedTuple):
    """What a finished part says of itself."""

    failed: list[tuple[str, str]]  # id and reason of frames without a prediction
    rows: list[Row]  # of the index of the whole set


class SetSummary(NamedTuple):
    """A whole data set after its prediction."""

    frames: int  # predicted ones
    failed: dict[str, str]  # id of a frame without a prediction -> the reason
    shards: int  # files, where the predictions are shards


@contextmanager
def begun(plan: SetPlan) -> Iterator[list[int]]:
    """The folder of the predictions, begun or continued -> the numbers of the parts that are still to be predicted.

    Where it ends with an error before any part is finished, nothing of it is left.
    """
    folder = open_folder(plan.request.out)
    is_new = not isinstance(folder, LocalFolder) or not folder.path.exists()
    if isinstance(folder, LocalFolder):
        for stale in folder.path.glob(f"{STAGING}*"):  # of workers that were killed
            shutil.rmtree(stale, ignore_errors=True)
    if not plan.is_begun:
        set_manifest.write(folder, plan.manifest)
    finished = set((folder / PARTS).names())
    try:
        yield [number for number in plan.parts if _record_name(number) not in finished]
    except BaseException:
        if not plan.is_begun and not (folder / PARTS).names():
            _discard(folder, is_new=is_new)
        raise


def _discard(folder: AnyFolder, *, is_new: bool) -> None:
    """Remove what `begun` has made, unless a part has got files there."""
    if [name for name in folder.names() if name not in (set_manifest.NAME, f"{PARTS}/") and STAGING not in name]:
        return
    folder.remove(set_manifest.NAME)
    if isinstance(folder, LocalFolder):
        folder.remove(PARTS)
        if is_new:
            with suppress(OSError):  # somebody else has put files there meanwhile
                folder.path.rmdir()


def predict_part(
    plan: SetPlan, number: int, source: Source, predictor: Predictor, *, advance: Callable[[int], None] = lambda _: None
) -> int:
    """Predict the frames of a part and write its files -> the number of those that failed."""
    folder = open_folder(plan.request.out)
    failed: list[tuple[str, str]] = []
    with _staging(folder) as staging:
        with _open_output(plan, number, staging, source) as output:
            of_part = plan.frames(number)
            found = predict_frames(source, predictor, of_part, section=plan.section, batch=plan.request.batch)
            for predicted in found:
                if fault := _write(output, source, predicted):
                    failed.append((source.frames[predicted.position].id, fault))
                advance(1)
            rows = output.finish()
        _publish(staging, folder, number)
    record = {"failed": failed, "rows": rows}
    (folder / PARTS).write(_record_name(number), json.dumps(record).encode())
    return len(failed)


def predict_all(plan: SetPlan, source: Source, *, advance: Callable[[int], None] = lambda _: None) -> None:
    """Predict all parts that are unfinished, in this process. `advance` takes the number of frames that are done."""
    with begun(plan) as parts:
        advance(plan.total - sum(len(plan.frames(number)) for number in parts))
        if not parts:
            return  # the network need not be loaded
        predictor = open_network(plan)
        for number in parts:
            predict_part(plan, number, source, predictor, advance=advance)


def finish(plan: SetPlan) -> SetSummary:
    """Write the lists of the whole data set, when all its parts are finished."""
    folder = open_folder(plan.request.out)
    records = [_read_record(folder, number) for number in plan.parts]
    failed = [each for record in records for each in record.failed]
    _write_lists(folder, plan, [row for record in records for row in record.rows])
    if failed:
        folder.write(FAILED, _failed_table(failed).encode())
    else:
        folder.remove(FAILED)
    shards = sum(name.endswith(".h5") for name in folder.names())
    if shards:
        index_files.write(folder.path) if isinstance(folder, LocalFolder) else remote_shards.write_index(folder)
    return SetSummary(plan.total - len(failed), dict(failed), shards)


def _open_output(plan: SetPlan, number: int, folder: Path, source: Source) -> PartOutput:
    """The output of a part in a folder."""
    if plan.request.to == BAGS:
        return bag_output.BagOutput(plan, number, folder, source)
    return PngOutput(folder, number) if plan.request.to == "png" else ShardOutput(plan, number, folder)


def _write_lists(folder: AnyFolder, plan: SetPlan, rows: list[Row]) -> None:
    """Write what makes the files of all parts one data set."""
    if plan.request.to == BAGS:
        bag_output.write_metadata(folder, rows)
    elif plan.request.to == "png":
        index = io.StringIO(newline="")
        writer = csv.DictWriter(index, INDEX_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
        folder.write(INDEX, index.getvalue().encode())


def _write(output: PartOutput, source: Source, predicted: PredictedFrame) -> str:
    """Append a frame to the output -> the reason why it is left out; "" where it is not."""
    if predicted.fault:
        return predicted.fault
    try:
        output.add(predicted.position, source.frames[predicted.position], predicted.sample, predicted.maps)
    except DataError as error:
        return str(error)
    return ""


@contextmanager
def _staging(folder: AnyFolder) -> Iterator[Path]:
    """A folder for unfinished files: beside their place, so that they are renamed, or on this machine before upload."""
    if not isinstance(folder, LocalFolder):
        with tempfile.TemporaryDirectory(prefix="depthray-part-") as name:
            yield Path(name)
        return
    # A name of its own: a part that Ray starts again may run while the lost worker still writes.
    path = folder.path / f"{STAGING}{uuid4().hex}"
    with translate_write_errors(folder.path):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _publish(staging: Path, folder: AnyFolder, number: int) -> None:
    """Move the files of a part to their place, in place of those that an unfinished attempt left there."""
    index_files.discard(folder.path) if isinstance(folder, LocalFolder) else remote_shards.discard_index(folder)
    for name in folder.names():
        # An attempt with frames of a further size had a shard more.
        if (match := NAME.fullmatch(name)) and int(match[1]) == number:
            folder.remove(name)
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        name = path.relative_to(staging).as_posix()
        if isinstance(folder, LocalFolder):
            with translate_write_errors(folder.path):
                (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, folder.path / name)
        else:
            folder.upload(name, path)


def _record_name(number: int) -> str:
    return f"{number:05d}.json"


def _read_record(folder: AnyFolder, number: int) -> PartRecord:
    try:
        tree = json.loads((folder / PARTS).read(_record_name(number)))
        return PartRecord([(name, reason) for name, reason in tree["failed"]], tree["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{folder.url}/{PARTS}/{_record_name(number)}: missing or damaged; remove it, and give the same command"
        ) from None


def _failed_table(failed: list[tuple[str, str]]) -> str:
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("frame", "reason"))
    writer.writerows(failed)
    return table.getvalue()
