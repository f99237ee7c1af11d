"""The command line: a table word -> "module:main", resolved only when asked, so that `--help` imports nothing heavy."""

from __future__ import annotations

import os
import sys
from pkgutil import resolve_name

from depthray import __version__
from depthray.cli import submit_flags
from depthray.errors import DepthrayError, ResourceError, UsageError, did_you_mean

WORDS = {
    "train": ("cluster.train:main", "train a recipe into a checkpoint, on Ray Train or --local"),
    "tune": ("tuning.command:main", "search learning rates, augmentations, loss weights with Ray Tune"),
    "report": ("tuning.report.build:main", "the report of a search, made again, also while it runs"),
    "evaluate": ("depthray.cli.evaluate:main", "score a checkpoint under a named protocol"),
    "predict": (
        "depthray.cli.predict:main",
        "depth of images or folders, as PNG, npy, colour map, point cloud",
    ),
    "serve": ("serve.command:main", "answer HTTP with a checkpoint, promote another, take it back"),
    "completion": ("depthray.cli.completion:main", "error of a completion network against the number of depth samples"),
    "view": ("depthray.cli.view:main", "frames to look at: Rerun recording, error and edge sheets, point clouds"),
    "measure": ("depthray.cli.measure:main", "distance in metres between two pixels of a photograph"),
    "models": ("depthray.cli.models:main", "list the architectures and their variants"),
    "data convert": ("cluster.convert:main", "any form of data set into shards, on one or many workers"),
    "data": ("depthray.cli.data:main", "render, pack, check and describe data sets"),
    "runs": ("depthray.cli.runs:main", "list, show, stop, resume and clean runs, here or on an object store"),
    "recipe": ("depthray.cli.recipe:main", "list and show recipes, print their JSON schema"),
    "doctor": ("depthray.cli.doctor:main", "check this machine and say how to mend what is wrong"),
    "demo": ("cluster.demo:main", "rendered scenes, training, evaluation and prediction in minutes"),
}

HELP = f"""usage: depthray WORD ...

Depth from images: train, evaluate, predict.

{chr(10).join(f"  {word:<14}{about}" for word, (_, about) in WORDS.items())}

Dotted words change numbers (optim.lr=3e-4), dashed flags say where and how much (--workers 4).
train, tune, evaluate and data convert run as a job of a Ray cluster with --submit [ADDRESS].
`depthray WORD --help` says more.
Exit codes: 0 ok, 2 usage, 3 data or checkpoint, 4 diverged, 5 resources, 130 interrupted."""


def main(argv: list[str] | None = None) -> int:
    """Run one word of the command line and return its exit code."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # else a reader that has gone, as `head` goes, shows only when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nobody to go to
        return 141  # what a shell says of a program that SIGPIPE ended


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if words[0] == "--version":
        print(f"depthray {__version__}")
        return 0
    _no_calls_out()
    try:
        word = " ".join(words[:2]) if " ".join(words[:2]) in WORDS else words[0]
        return _run_word(word, words[len(word.split()) :])
    except DepthrayError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except MemoryError as error:
        return _say(f"not enough memory ({error}); lower data.size or train.batch_size", ResourceError.exit_code)
    except OSError as error:
        if not error.filename:
            raise
        return _say(f"{error.filename}: {error.strerror}", ResourceError.exit_code)


def _run_word(word: str, rest: list[str]) -> int:
    if word in submit_flags.WORDS and submit_flags.asked(rest):
        return int(resolve_name("cluster.jobs.submit:main")(word, rest))
    if word in submit_flags.WORDS and submit_flags.inside():
        rest = resolve_name("cluster.jobs.submit:settled")(word, rest)
    return int(_resolve(word)(rest))


def _say(text: str, code: int) -> int:
    # One line, whatever names of files and keys have in them.
    print("depthray:", " ".join(text.splitlines()), file=sys.stderr)
    return code


def _resolve(word: str):  # type: ignore[no-untyped-def]
    if word not in WORDS:
        raise UsageError(f"no command '{word}'{did_you_mean(word, WORDS)}; see depthray --help")
    # Sibling packages are found from a checkout too, where only the working directory knows them.
    return resolve_name(WORDS[word][0])


def _no_calls_out() -> None:
    """Keep third-party packages from calling home; the user's own setting wins."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


if __name__ == "__main__":
    sys.exit(main())
