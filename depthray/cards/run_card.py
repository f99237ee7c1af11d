"""The card of a checkpoint that is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from depthray.cards import collected
from depthray.cards.card_markdown import CardSubject, markdown
from depthray.checkpoints import load, manifest, select
from depthray.checkpoints.manifest import WEIGHTS
from depthray.errors import CheckpointError, DepthrayError
from depthray.storage import local
from depthray.storage.os_errors import translate_os_errors


def subject_of(path: Path, *, reports: Path | None) -> CardSubject:
    """What a card says of a checkpoint, with the reports in a folder, which there may be none of."""
    record = manifest.read(path)
    return CardSubject(
        recipe=load.read_recipe(path),
        facts=collected.facts_of(path, reports=reports),
        origin=record.origin,
        calibration=record.calibration,
        epoch=record.epoch,
        step=record.step,
        sha256=record.files[WEIGHTS].sha256,
        versions=record.versions,
        metrics=load.read_metrics(path),
    )


def write_best(root: Path, out: Path, *, reports: Path, curves: str, log: Callable[[str], None]) -> None:
    """Write the card of the best checkpoint in a folder of them, where there is one; why it cannot be is logged."""
    try:
        if select.committed(root):
            write(select.resolve(root), out, reports=reports, curves=curves)
    except DepthrayError as error:  # a disk may be full, which must not hide how the run ended
        log(f"no model card: {error}")


def read(path: Path, *, reports: Path | None) -> str:
    """The card of a checkpoint as Markdown."""
    return markdown(subject_of(path, reports=reports))


def write(path: Path, out: Path, *, reports: Path | None, curves: str = "") -> None:
    """Write the card of a checkpoint into a file; `curves` is a picture beside that, which there may be none of."""
    subject = subject_of(path, reports=reports)
    if curves and (out.parent / curves).is_file():
        subject = replace(subject, curves=curves)
    write_text(markdown(subject), out)


def write_text(card: str, out: Path) -> None:
    """Write a card into a file, whose folder is made; CheckpointError where that cannot be."""
    with translate_os_errors(out, to=CheckpointError, doing="write the model card"):
        out.parent.mkdir(parents=True, exist_ok=True)
        local.replace(out, card.encode())
