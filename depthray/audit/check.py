"""Checks every frame of a data set for faults that would spoil training or its scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import NamedTuple

from rich.table import Table

from depthray.audit.lookalikes import find_lookalikes, picture_hash
from depthray.data.encodings import depth_faults, judged_depth
from depthray.data.source import Frame, Source
from depthray.data.split import SIDES, overlaps
from depthray.errors import DataError
from depthray.imaging.camera import describe_misfit

EXAMPLES = 3  # of each kind of finding, in the table
EMPTY = "empty depth"


class DataFinding(NamedTuple):
    """One fault of one frame or scene."""

    kind: str
    frame: str
    detail: str


class FrameCheck(NamedTuple):
    """The findings in one frame."""

    digest: bytes  # of the image; b"" if unusable
    look: int  # its perceptual hash; -1 if unusable
    findings: list[DataFinding]


def find_faults(source: Source, *, max_depth: float, advance: Callable[[], None] = lambda: None) -> list[DataFinding]:
    """All findings in a data set, first those of its index, then in the order of its frames."""
    frames = source.frames
    findings = [*_duplicate_ids(frames), *_split_faults(frames)]
    first: dict[bytes, Frame] = {}
    looks: list[int] = []
    with ThreadPoolExecutor() as threads:  # decoding and hashing release the interpreter lock
        # map keeps the order of the frames, so that the first of two equal images is always the same one.
        checks = threads.map(lambda index: check_frame(source, index, max_depth=max_depth), range(len(frames)))
        for frame, (digest, look, own) in zip(frames, checks, strict=True):
            findings += own
            looks.append(look)
            if digest and (other := first.setdefault(digest, frame)) is not frame:
                findings.append(DataFinding("duplicate frame", frame.id, _same_as(frame, other)))
            advance()
    return [*findings, *_lookalikes(frames, looks, first={frame.id for frame in first.values()})]


def check_frame(source: Source, index: int, *, max_depth: float) -> FrameCheck:
    """Read one frame and check it."""
    name = source.frames[index].id
    try:
        sample = source.read(index)
        odd = source.faults(index)  # only of a frame that can be read: what is missing is one finding, not two
    except DataError as error:
        return FrameCheck(b"", -1, [DataFinding("unusable", name, str(error))])
    image = sample["image"]
    faults = [("odd values" if "unmeasured" in detail else "altered", detail) for detail in odd]
    if "depth" in sample:
        faults += depth_faults(judged_depth(sample), max_depth=max_depth)
    if "intrinsics" in sample:
        cx, cy = (float(sample["intrinsics"][row, 2]) for row in (0, 1))
        misfit = describe_misfit(round(cx, 3), round(cy, 3), height=image.shape[0], width=image.shape[1])
        faults += [("camera", misfit)] if misfit else []
    if image.min() == image.max():
        faults.append(("constant image", f"every pixel is {image.min()}"))
    # The shape as well: the same bytes may be images of another height and width.
    digest = sha256(repr(image.shape).encode() + image.tobytes()).digest()
    return FrameCheck(digest, picture_hash(image), [DataFinding(kind, name, detail) for kind, detail in faults])


def set_aside_masks(source: Source, findings: Sequence[DataFinding]) -> tuple[list[DataFinding], list[str]]:
    """The findings, and notes in place of those on missing depth where no frame has any and all have masks."""
    usable = len(source.frames) - len({each.frame for each in findings if each.kind == "unusable"})
    empty = sum(each.kind == EMPTY for each in findings)
    if "mask" not in source.keys or not 0 < empty == usable:
        return list(findings), []
    return [each for each in findings if each.kind != EMPTY], ["no frame has depth: a set for masks alone"]


def findings_table(findings: Sequence[DataFinding], *, below: str = "") -> Table:
    """The findings by kind: their number and the first few. Paths in the folder `below` are shown relative to it."""
    kinds: dict[str, list[DataFinding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind].append(finding)
    result = Table(title="data check")
    for name in ("finding", "count", "frame or scene", "for example"):
        result.add_column(name, overflow="fold")  # a name that is cut off is the one that was looked for
    for kind, group in kinds.items():
        for number, finding in enumerate(group[:EXAMPLES]):
            head = ("", "") if number else (kind, str(len(group)))  # kind and count once, on the first line of a group
            result.add_row(
                *head,
                finding.frame,
                _shorten(finding.detail, below),
                end_section=number == min(EXAMPLES, len(group)) - 1,
            )
    return result


def _shorten(detail: str, below: str) -> str:
    return detail.replace(f"{below.rstrip('/')}/", "") if below else detail


def _duplicate_ids(frames: Sequence[Frame]) -> Iterator[DataFinding]:
    seen: set[str] = set()
    for index, frame in enumerate(frames):
        if frame.id in seen:
            yield DataFinding("duplicate id", frame.id, f"frame {index} has the id of an earlier one")
        seen.add(frame.id)


def _split_faults(frames: Sequence[Frame]) -> Iterator[DataFinding]:
    for scene, sides in overlaps(frames).items():
        yield DataFinding("split overlap", scene, f"the scene's frames are declared {' and '.join(sides)}")
    for frame in frames:
        if frame.split not in ("", *SIDES):
            yield DataFinding("unknown split", frame.id, f"'{frame.split}' is none of {', '.join(SIDES)}")


def _lookalikes(frames: Sequence[Frame], looks: Sequence[int], *, first: set[str]) -> Iterator[DataFinding]:
    """Frames that look like one of another side; those with equal bytes, which are not in `first`, are known."""
    for frame, other in find_lookalikes(frames, looks):
        if frame.id in first:
            detail = (
                f"looks like '{other.id}' of the side {other.split or 'train'}: scores would be of what was trained on"
            )
            yield DataFinding("same on two sides", frame.id, detail)


def _same_as(frame: Frame, other: Frame) -> str:
    where = "" if frame.scene == other.scene else f", in another scene: '{frame.scene}' and '{other.scene}'"
    return f"same image as '{other.id}'{where}"
