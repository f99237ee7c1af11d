"""`depthray runs list|show|stop|resume|clean`: the runs and searches of a folder, here or on an object store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from depthray.config.metric_names import rank_key
from depthray.errors import UsageError
from depthray.runs import console
from depthray.runs import listing as runs
from depthray.storage.folders import open_folder

SETTLED = 3600.0  # seconds without a line after which a run that never said it ended may be cleaned
COLUMNS = ("name", "recipe", "state", "done", "best", "size", "last line")


def main(argv: list[str]) -> int:
    """Run one word."""
    arguments = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray runs", description="Runs and searches: here, or s3://BUCKET/runs.")
    verbs = parser.add_subparsers(required=True, metavar="list|show|stop|resume|clean")
    listing = verbs.add_parser("list", help="one line a run: recipe, state, epochs, best score, size, age")
    listing.add_argument("folder", nargs="?", default="runs", help="where the runs lie (default: runs)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)
    _add(verbs, "show", _show, "a run's recipe, checkpoints with scores, progress, and how to go on")
    _add(verbs, "stop", _stop, "ask a run to save a checkpoint and end, wherever it runs")
    resume = _add(verbs, "resume", _resume, "go on with a run or a search")
    resume.add_argument("further", nargs=argparse.REMAINDER, help="of `depthray train`: --workers 4, --submit, ...")
    clean = verbs.add_parser("clean", help="remove what a run can do without: all but its best and last checkpoint")
    clean.add_argument("runs", nargs="+", metavar="RUN", help="the run's folder")
    clean.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    clean.add_argument("--all", action="store_true", help="remove the whole run, after a question")
    clean.add_argument("--yes", action="store_true", help="with --all: do not ask")
    clean.set_defaults(run=_clean)
    return parser


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    verb: str,
    run: Callable[[argparse.Namespace], int],
    about: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(verb, help=about)
    parser.add_argument("run_folder", metavar="RUN", help="the run's folder")
    parser.set_defaults(run=run)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    rows = [_row(run) for run in runs.find_runs(open_folder(arguments.folder))]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"no runs in {arguments.folder}")
    else:
        _table([COLUMNS, *(_cells(row) for row in rows)])
    return 0


Row = dict[str, str | int | float | None]


def _row(run: runs.Run) -> Row:
    """What is known of a run, as plain values."""
    now = time.time()
    row: Row = {"name": run.name, "folder": run.url, "kind": "search" if run.is_search else "run", "size": run.size}
    try:
        found = runs.status(run, now=now)
        recipe, changed = runs.nearest_recipe(run.recipe)
    except UsageError as error:
        return {**row, "state": "unreadable", "why": str(error)}
    age = None if found.heard is None else max(0.0, now - found.heard)
    return {**row, **found._asdict(), "age": age, "recipe": recipe, "changed": len(changed)}


def _cells(row: Row) -> tuple[str, ...]:
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
        print(f"{'go on':<12} depthray runs resume {run.url}")
    return 0


def _show_recipe(run: runs.Run) -> None:
    """What differs from the recipe that is nearest."""
    name, changed = runs.nearest_recipe(run.recipe)
    print(f"{'recipe':<12} {name}" + (" with" if changed else ""))
    for key, (before, after) in changed.items():
        print(f"  {key}={json.dumps(after)}  (there: {json.dumps(before)})")


def _show_run(run: runs.Run) -> None:
    """The checkpoints of a run and the end of its progress."""
    saved = run.checkpoints()
    top = runs.best(saved, run.recipe.eval.monitor)
    print(f"{'checkpoints':<12} {len(saved)}")
    for each in saved:
        marks = " ".join(mark for mark, is_it in (("best", each is top), ("last", each is saved[-1])) if is_it)
        score = "not validated" if each.score is None else f"{run.recipe.eval.monitor} {each.score:.4f}"
        print(f"  {each.name}  {score}  {bytes_of(each.size)}  {marks}".rstrip())
    print(f"{'progress':<12} {len(run.records)} lines")
    for record in run.records[-4:]:
        print(f"  {console.line(record)}")


def _show_trials(run: runs.Run) -> None:
    """The trials of a search: name, state, best score."""
    metric = str(run.json(runs.SEARCH).get("metric", ""))
    for trial in run.trials:
        scores = sorted(trial.scores(), key=lambda value: rank_key(metric, value))
        told = f"{metric} {scores[0]:.4f}" if scores else "no score yet"
        print(f"  {PurePosixPath(trial.place).name}  {trial.json(runs.TRIAL).get('state', 'waiting')}  {told}")
    print(f"{'report':<12} depthray report {run.url}")


def _stop(arguments: argparse.Namespace) -> int:
    run = runs.open_run(arguments.run_folder)
    if run.is_search:
        raise UsageError(f"{run.url} is a search; stop it by Ctrl-C where it runs, or by `ray job stop`")
    found = runs.status(run, now=time.time())
    if found.state not in ("running", "silent"):
        print(f"{run.url} does not run: {found.state}{f' ({found.why})' if found.why else ''}")
        return 0
    run.root.write(run.path(runs.STOP), b"")
    print(f"{run.url} was asked to stop; it ends after the step under way, with a checkpoint")
    print(f"go on with: depthray runs resume {run.url}")
    return 0


def _resume(arguments: argparse.Namespace) -> list[str]:
    """The command line that resumes the run or search."""
    run = runs.open_run(arguments.run_folder)
    if runs.status(run, now=time.time()).state == "running":
        go_on = f"depthray tune --resume {run.url}" if run.is_search else f"depthray train --out {run.url} --resume"
        raise UsageError(f"{run.url} is running, by its last line; if it was killed, go on with: {go_on}")
    words = ["tune", "--resume", run.url] if run.is_search else ["train", "--out", run.url, "--resume"]
    return [*words, *arguments.further]


def _clean(arguments: argparse.Namespace) -> int:
    found = [runs.open_run(folder) for folder in arguments.runs]  # all must be runs before one is touched
    for run in found:
        _check_over(run)
    for run in found:
        if arguments.all:
            _remove(run, dry=arguments.dry_run, sure=arguments.yes)
        else:
            _trim(run, dry=arguments.dry_run)
    return 0


def _check_over(run: runs.Run) -> None:
    """Raise UsageError for a run that may be going on."""
    try:
        found = runs.status(run, now=time.time())
    except UsageError:
        return  # of a version that cannot be going on here
    heard = time.time() - (found.heard or 0.0)
    if found.state == "running" or found.state == "silent" and heard < SETTLED:
        raise UsageError(
            f"{run.url} is {found.state}, last line {_age(heard)}; "
            "stop it first, or wait until it has been silent for an hour"
        )


def _trim(run: runs.Run, *, dry: bool) -> None:
    spare = runs.removable(run)
    for name, size in spare.items():
        print(f"{'would remove' if dry else 'removed'} {run.url}/{name}  ({bytes_of(size)})")
        if not dry:
            runs.remove(run, name)
    verb = "would free" if dry else "freed"
    print(f"{verb} {bytes_of(sum(spare.values()))} of {bytes_of(run.size)} in {run.url}")


def _remove(run: runs.Run, *, dry: bool, sure: bool) -> None:
    """Remove a whole run, its recipe last: what is left of an interrupted removal is still known for a run."""
    if dry:
        print(f"would remove {run.url} and all in it ({bytes_of(run.size)}, {len(run.files)} files)")
        return
    if not sure and not _agreed(f"remove {run.url} and all in it ({bytes_of(run.size)})? [y/N] "):
        print(f"kept {run.url}")
        return
    for name in sorted({name.split("/")[0] for name in run.files}, key=lambda name: name == runs.RECIPE):
        runs.remove(run, name)
    run.root.remove(run.path(""))
    print(f"removed {run.url} ({bytes_of(run.size)})")


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("--all asks before it removes a run, and there is nobody to ask; give --yes as well")
    return input(question).strip().lower() in ("y", "yes")
