"""`depthray card`: the model card of a checkpoint, with the reports that were made of it since."""

from __future__ import annotations

import argparse
from pathlib import Path

from depthray.cards import collected
from depthray.checkpoints import model_facts, select
from depthray.checkpoints.model_facts import ModelFacts
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.errors import CheckpointError
from depthray.runs import layout, locate
from depthray.runtimes import export_folder
from depthray.storage.remote import is_remote


def main(argv: list[str]) -> int:
    """Print the card that the command line asks for; that of a run is written into its folder too."""
    arguments = build_parser().parse_args(argv)
    path = locate.resolve(arguments.checkpoint)
    from depthray.cards import run_card  # only now: --help need not wait for NumPy

    reports = None if is_remote(arguments.checkpoint) else layout.reports(path)
    if arguments.json:
        facts = collected.facts_of(path, reports=reports)
        print(model_facts.render(_known(facts, path)).decode(), end="")
        return 0
    text = card_text(path, reports=reports)
    print_markdown(text)
    if arguments.out:
        run_card.write_text(text, arguments.out)
        print(f"written: {arguments.out}")
    elif not is_remote(arguments.checkpoint) and (written := refresh(path)):
        print(f"written: {written}")
    return 0


def card_text(path: Path, *, reports: Path | None) -> str:
    """The card of a checkpoint with the reports in a folder, or that of an export, as Markdown."""
    from depthray.cards import run_card

    if export_folder.is_export(path):  # it has one, which its writer made with the checkpoint at hand
        return export_folder.read_folder(path).read_file(layout.MODEL_CARD).decode()
    return run_card.read(path, reports=reports)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray card`."""
    parser = CommandParser(
        prog="depthray card",
        description="Print the model card of a checkpoint: its data, scores with intervals, robustness, limits and "
        "licences. That of a run's best checkpoint is written to RUN/MODEL_CARD.md too.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="RUN", help="a checkpoint, an export, or a run (its best one)")
    parser.add_argument("--json", action="store_true", help="print what is known as JSON instead")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the card there instead")
    return parser


def refresh(checkpoint: Path) -> Path | None:
    """Write the card of a run anew, where this is its best checkpoint; its file, None where there is none to write."""
    from depthray.cards import run_card

    checkpoint = checkpoint.resolve()
    run = checkpoint.parents[1]
    if checkpoint.parent.name != layout.CHECKPOINTS or select.resolve(run) != checkpoint:
        return None
    out = run / layout.MODEL_CARD
    run_card.write(checkpoint, out, reports=layout.reports(checkpoint), curves=layout.RESULTS_PICTURE)
    return out


def _known(facts: ModelFacts | None, path: Path) -> ModelFacts:
    if facts is None:
        raise CheckpointError(f"{path}: does not say what it was trained on, as checkpoints of earlier versions")
    return facts
