"""`depthray runs list|show|stop|resume|clean`: the runs and searches of a folder, here or on an object store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from depthray.cli.flags.command_parser import CommandParser
from depthray.config.metric_names import rank_key
from depthray.errors import UsageError
from depthray.runs import console, layout
from depthray.runs import listing as runs
from depthray.storage.folders import open_folder
from depthray.storage.remote import is_remote

SETTLED = 3600.0  # seconds without a record after which a run that recorded no end may be cleaned
FOLDER = "runs"  # where runs are made without --out
COLUMNS = ("name", "recipe", "state", "done", "best", "size", "last line")


Answer = int | list[str]  # an exit code, or the command line to run instead


def main(argv: list[str]) -> Answer:
    """Run one of the commands."""
    arguments = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], Answer] = arguments.run
    return run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray runs` and its verbs."""
    parser = CommandParser(prog="depthray runs", description="Runs and searches: here, or s3://BUCKET/runs.")
    verbs = parser.add_subparsers(required=True, metavar="list|show|stop|resume|clean")
    listing = verbs.add_parser("list", help="one line a run: recipe, state, epochs, best score, size, age")
    listing.add_argument("folder", nargs="?", default=FOLDER, help=f"the folder of the runs (default: {FOLDER})")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    _add(verbs, "show", _show, "a run's recipe, checkpoints with scores, progress, and how to resume")
    _add(verbs, "stop", _stop, "ask a run to save a checkpoint and stop, wherever it runs")
    resume = _add(verbs, "resume", _resume, "resume a run or a search")
    resume.add_argument("further", nargs=argparse.REMAINDER, help="of `depthray train`: --workers 4, --submit, ...")
    clean = verbs.add_parser("clean", help="remove what a run can spare: all but its best and last checkpoint")
    clean.add_argument("runs", nargs="+", metavar="RUN", help="the run's folder")
    clean.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")
    clean.add_argument("--all", action="store_true", help="remove all of the run, after a question")
    clean.add_argument("--yes", action="store_true", help="with --all: do not ask")
    clean.set_defaults(run=_clean)
    return parser


def _add(
    verbs: argparse._SubParsersAction[CommandParser],
    verb: str,
    run: Callable[[argparse.Namespace], Answer],
    about: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(verb, help=about)
    parser.add_argument("run_folder", metavar="RUN", help="the run's folder")
    parser.set_defaults(run=run)
    return parser


def _check_folder(folder: str) -> None:
    """Raise UsageError for a folder that is not there, which a misspelt one would else look like: without runs."""
    if folder == FOLDER or is_remote(folder):  # the usual folder is made by the first run
        return
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: {'not a folder' if Path(folder).exists() else 'no such folder'}")


def _list(arguments: argparse.Namespace) -> int:
    _check_folder(arguments.folder)
    rows = [_row(run) for run in runs.find_runs(open_folder(arguments.folder))]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"no runs in {arguments.folder}")
    else:
        _table([COLUMNS, *(_cells(row) for row in rows)])
    return 0


RunRow = dict[str, str | int | float | None]


def _row(run: runs.Run) -> RunRow:
    """A run as plain values."""
    now = time.time()
    row: RunRow = {"name": run.name, "folder": run.url, "kind": "search" if run.is_search else "run", "size": run.size}
    try:
        status = runs.status(run, now=now)
        recipe, changed = runs.nearest_recipe(run.recipe)
    except UsageError as error:  # one broken recipe must not hide the other runs
        return {**row, "state": "unreadable", "why": str(error)}
    values = status._asdict()
    seen = values["heard"] = values.pop("last_seen")  # scripts read the key of version 0.1
    age = None if seen is None else max(0.0, now - seen)
    return {**row, **values, "age": age, "recipe": recipe, "changed": len(changed)}


def _cells(row: RunRow) -> tuple[str, ...]:
    if row["state"] == "unreadable":
        return str(row["name"]), "?", "unreadable", "", "", bytes_of(int(row["size"] or 0)), ""
    unit = "trials" if row["kind"] == "search" else "epochs"
    recipe = f"{row['recipe']} +{row['changed']}" if row["changed"] else str(row["recipe"])
    score = "" if row["score"] is None else f"{row['metric']} {row['score']:.4f}"
    done = f"{row['done']}/{row['of']} {unit}"
    return str(row["name"]), recipe, str(row["state"]), done, score, bytes_of(int(row["size"] or 0)), _age(row["age"])


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def bytes_of(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            size = count / 1000**power
            return f"{size:.0f} {unit}" if size >= 100 else f"{size:.1f} {unit}"
    return f"{count} B"


def _age(seconds: object) -> str:
    if not isinstance(seconds, float):
        return "never"
    for most, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{seconds / 86400:.0f} d ago"


def _show(arguments: argparse.Namespace) -> int:
    run = runs.open_run(arguments.run_folder)
    row = _row(run)
    if row["state"] == "unreadable":
        raise UsageError(str(row["why"]))
    why = f": {row['why']}" if row["why"] else ""
    print(f"{row['kind']:<12} {run.url}  ({bytes_of(run.size)})")
    print(f"{'state':<12} {row['state']}{why}, last line {_age(row['age'])}")
    unit, score = ("trials", "epochs")[not run.is_search], row["score"]
    print(
        f"{'done':<12} {row['done']} of {row['of']} {unit}"
        + ("" if score is None else f", best {row['metric']} {score:.4f}")
    )
    _show_recipe(run)
    _show_trials(run) if run.is_search else _show_run(run)
    if row["state"] == "running":
        print(
            f"{'stop':<12} " + ("Ctrl-C there, or `ray job stop`" if run.is_search else f"depthray runs stop {run.url}")
        )
    elif row["state"] != "finished":
        print(f"{'resume':<12} depthray runs resume {run.url}")
    return 0


def _show_recipe(run: runs.Run) -> None:
    """The nearest recipe that depthray ships, and what differs from it."""
    name, changed = runs.nearest_recipe(run.recipe)
    print(f"{'recipe':<12} {name}" + (" with" if changed else ""))
    for key, (before, after) in changed.items():
        print(f"  {key}={json.dumps(after)}  (there: {json.dumps(before)})")


def _show_run(run: runs.Run) -> None:
    """The checkpoints of a run and the end of its progress."""
    print(f"{'checkpoints':<12} {len(run.checkpoints)}")
    for saved in run.checkpoints:
        is_best = saved is run.best_checkpoint and saved.score is not None
        marks = " ".join(["best"] * is_best + ["last"] * (saved is run.checkpoints[-1]))
        score = "not validated" if saved.score is None else f"{run.recipe.eval.monitor} {saved.score:.4f}"
        print(f"  {saved.name}  {score}  {bytes_of(saved.size)}  {marks}".rstrip())
    print(f"{'progress':<12} {len(run.records)} lines")
    for record in run.records[-4:]:
        print(f"  {console.line(record)}")


def _show_trials(run: runs.Run) -> None:
    """The trials of a search: name, state, best score."""
    metric = str(run.json(layout.SEARCH).get("metric", ""))
    for trial in run.trials:
        scores = sorted(trial.scores(), key=lambda value: rank_key(metric, value))
        score = f"{metric} {scores[0]:.4f}" if scores else "no score yet"
        state = trial.json(layout.TRIAL).get("state", "waiting")
        print(f"  {PurePosixPath(trial.path).name}  {state}  {score}")
    print(f"{'report':<12} depthray report {run.url}")


def _stop(arguments: argparse.Namespace) -> int:
    run = runs.open_run(arguments.run_folder)
    if run.is_search:
        # Its trials would resume: a search has no file STOP, and only its driver can end it.
        raise UsageError(f"{run.url} is a search; stop it by Ctrl-C where it runs, or by `ray job stop`")
    status = runs.status(run, now=time.time())
    if status.state not in ("running", "silent"):
        print(f"{run.url} does not run: {status.state}{f' ({status.why})' if status.why else ''}")
        return 0
    run.root.write(run.path_of(layout.STOP), b"")  # wherever it trains, it looks for this file
    print(f"{run.url} was asked to stop; it ends after the current step, with a checkpoint")
    print(f"resume with: depthray runs resume {run.url}")
    return 0


def _resume(arguments: argparse.Namespace) -> list[str]:
    """The command line that resumes the run or search."""
    run = runs.open_run(arguments.run_folder)
    # Two processes that train into one folder would overwrite each other's checkpoints.
    if runs.status(run, now=time.time()).state == "running":
        resume = f"depthray tune --resume {run.url}" if run.is_search else f"depthray train --out {run.url} --resume"
        raise UsageError(f"{run.url} is running, by its last line; if it was killed, resume with: {resume}")
    command_line = ["tune", "--resume", run.url] if run.is_search else ["train", "--out", run.url, "--resume"]
    return [*command_line, *arguments.further]


def _clean(arguments: argparse.Namespace) -> int:
    chosen = [runs.open_run(folder) for folder in arguments.runs]  # all must be runs before one is touched
    for run in chosen:
        _check_ended(run)
    for run in chosen:
        if arguments.all:
            _remove(run, dry=arguments.dry_run, sure=arguments.yes)
        else:
            _trim(run, dry=arguments.dry_run)
    return 0


def _check_ended(run: runs.Run) -> None:
    """Raise UsageError for a run that may still be training."""
    try:
        status = runs.status(run, now=time.time())
    except UsageError:
        return  # its recipe is of another version, which cannot be training here
    age = time.time() - (status.last_seen or 0.0)
    if status.state == "running" or (status.state == "silent" and age < SETTLED):
        raise UsageError(
            f"{run.url} is {status.state}, last line {_age(age)}; "
            "stop it first, or wait until it has been silent for an hour"
        )


def _trim(run: runs.Run, *, dry: bool) -> None:
    files = runs.removable(run)
    for name, size in files.items():
        print(f"{'would remove' if dry else 'removed'} {run.url}/{name}  ({bytes_of(size)})")
        if not dry:
            runs.remove(run, name)
    verb = "would free" if dry else "freed"
    print(f"{verb} {bytes_of(sum(files.values()))} of {bytes_of(run.size)} in {run.url}")


def _remove(run: runs.Run, *, dry: bool, sure: bool) -> None:
    """Remove all of a run, its recipe last: what is left of an interrupted removal is still listed as a run."""
    if dry:
        print(f"would remove {run.url} and all in it ({bytes_of(run.size)}, {len(run.files)} files)")
        return
    if not sure and not _confirm(f"remove {run.url} and all in it ({bytes_of(run.size)})? [y/N] "):
        print(f"kept {run.url}")
        return
    for name in sorted({name.split("/")[0] for name in run.files}, key=lambda name: name == layout.RECIPE):
        runs.remove(run, name)
    run.root.remove(run.path_of(""))
    print(f"removed {run.url} ({bytes_of(run.size)})")


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():  # a script must not remove a run because its input happens to say yes
        raise UsageError("--all asks before it removes a run, and there is nobody to ask; give --yes as well")
    return input(question).strip().lower() in ("y", "yes")
