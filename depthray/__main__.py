"""The command line: a table of commands, each "module:main", imported only when run, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pkgutil import resolve_name
from typing import Any

from depthray.cli.flags import job_flags
from depthray.cli.flags.job_flags import JobCommand
from depthray.config import shadowed_packages
from depthray.errors import DepthrayError, ResourceError, UsageError, did_you_mean
from depthray.version import __version__
from depthray.waiting import Heartbeat

COMMANDS = {
    "train": ("cluster.train:main", "train a recipe into a checkpoint, on Ray Train or --local"),
    "tune": ("tuning.command:main", "search learning rates, augmentations, loss weights with Ray Tune"),
    "report": ("tuning.report.build:main", "the report of a search, made again, also while it runs"),
    "evaluate": ("depthray.cli.evaluate:main", "score a checkpoint under a named protocol"),
    "compare": (
        "depthray.cli.scoring.compare:main",
        "which of several checkpoints is better, and whether that is beyond luck",
    ),
    "robust": ("depthray.cli.scoring.robust:main", "how fast a checkpoint's scores fall as photographs get worse"),
    "calibrate": (
        "depthray.cli.scoring.calibrate:main",
        "correct a checkpoint's metres by frames or points of your own",
    ),
    "card": ("depthray.cli.scoring.card:main", "a checkpoint's model card: data, scores, limits, licences"),
    "predict": (
        "cluster.predict_set:main",
        "depth of images, as PNG, npy, colour map, point cloud; of whole data sets",
    ),
    "serve": ("serve.command:main", "answer HTTP with a checkpoint, promote another, roll back"),
    "ros": ("serve.ros.command:main", "a ROS 2 node: a camera's images in, depth and points out"),
    "completion": ("depthray.cli.completion:main", "error of a completion network against the number of depth samples"),
    "export": ("depthray.cli.export:main", "a checkpoint for ONNX Runtime, OpenVINO and others, after comparing"),
    "view": ("depthray.cli.view:main", "frames to look at: Rerun recording, error and edge sheets, point clouds"),
    "measure": ("depthray.cli.measure:main", "distance in metres between two pixels of a photograph"),
    "new": ("depthray.testing.new:main", "a network, data set form or loss term of your own to start from"),
    "models": ("depthray.cli.models:main", "list the architectures and their variants"),
    "weights": ("depthray.cli.weights:main", "published weights to start from: list, show, fetch, verify"),
    "data convert": ("cluster.convert:main", "any form of data set into shards, on one or many workers"),
    "data": ("depthray.cli.data:main", "render, pack, check and describe data sets"),
    "runs": ("depthray.cli.runs:main", "list, show, stop, resume and clean runs, here or on an object store"),
    "recipe": ("depthray.cli.recipe:main", "list and show recipes, print their JSON schema"),
    "doctor": ("cluster.diagnostics.cluster_checks:main", "check this machine or a cluster, and say how to fix it"),
    "shell-completion": ("depthray.__main__:shell_completion", "a script for bash, zsh or fish to complete commands"),
    "demo": ("cluster.demo:main", "rendered scenes, training, evaluation and prediction in minutes"),
}
# Commands that can be jobs of a cluster. What they need is named here, since the package of jobs imports no command.
JOBS = {
    "train": JobCommand(
        "depthray.cli.train:build_parser", ("data", "out", "from"), ("recipe",), "depthray.cli.train:load_recipe"
    ),
    "tune": JobCommand(
        "tuning.command:build_parser", ("data", "out", "resume"), ("recipe", "space"), "tuning.plan:parse_request"
    ),
    "evaluate": JobCommand("depthray.cli.evaluate:build_parser", ("checkpoint", "data", "out")),
    "data convert": JobCommand("cluster.convert:build_parser", ("root", "out")),
    "predict": JobCommand(
        "depthray.cli.predicting.predict_flags:build_set_parser", ("checkpoint", "data", "out"), needs="--data"
    ),
}

# The parsers, for completion in shells, of commands whose module has no build_parser, or of several verbs of one.
PARSERS = {
    "train": "depthray.cli.train:build_parser",
    "predict": "depthray.cli.predicting.predict_flags:build_parser",
    "doctor": "depthray.cli.doctor:build_parser",
    "shell-completion": "depthray.cli.shells.shell_completion:build_parser",
    "serve promote": "serve.command:build_promote_parser",
    "serve rollback": "serve.command:build_rollback_parser",
    "serve list": "serve.command:build_list_parser",
    "serve prune": "serve.command:build_prune_parser",
}

# Commands that may print nothing for long; the others say what they do meanwhile.
SILENT = (
    *("evaluate", "compare", "calibrate", "completion", "measure", "view", "report", "export", "weights", "doctor"),
    *("data", "data convert"),
)

HELP = f"""usage: depthray COMMAND ...

Depth from images: train, evaluate, predict.

{chr(10).join(f"  {name:<18}{about}" for name, (_, about) in COMMANDS.items())}

Dotted overrides change numbers (optim.lr=3e-4), dashed flags say where and how much (--workers 4).
train, tune, evaluate, predict and data convert run as a job of a Ray cluster with --submit [ADDRESS].
`depthray COMMAND --help` shows the options of one.
Exit codes: 0 ok, 2 usage, 3 data or checkpoint, 4 diverged, 5 resources, 130 interrupted."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # else a reader that has gone, as `head` goes, shows only when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is still buffered
        return 141  # a shell's exit code for SIGPIPE


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] == "--version":
        print(f"depthray {__version__}")
        return 0
    _disable_telemetry()
    try:
        name = " ".join(arguments[:2]) if " ".join(arguments[:2]) in COMMANDS else arguments[0]
        return _run_command(name, arguments[len(name.split()) :])
    except DepthrayError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except MemoryError as error:
        return _fail(f"not enough memory ({error}); lower data.size or train.batch_size", ResourceError.exit_code)
    except OSError as error:
        if not error.filename:
            raise
        return _fail(f"{error.filename}: {error.strerror}", ResourceError.exit_code)


def _run_command(name: str, arguments: list[str]) -> int:
    shadowed_packages.install()  # `python -m depthray serve` beside somebody's serve.py
    if name in JOBS and job_flags.is_requested(arguments):
        return int(resolve_name("cluster.jobs.submit:main")(name, JOBS[name], arguments))
    if name in JOBS and job_flags.is_inside_job() and job_flags.is_given(JOBS[name].needs, arguments):
        arguments = resolve_name("cluster.jobs.submit:settle")(name, JOBS[name], arguments)
    with _heartbeat(name):
        answer = _resolve(name)(arguments)
    return _run(answer) if isinstance(answer, list) else int(answer)  # `runs resume` is another command line


def shell_completion(argv: list[str]) -> int:
    """`depthray shell-completion`, which is the one command that needs the table of all."""
    return int(resolve_name("depthray.cli.shells.shell_completion:main")(argv, _completed_commands))


def _completed_commands() -> tuple[dict[str, Any], dict[str, Any]]:
    """Every command with its parser, and what overrides change: a recipe, or the settings of a server."""
    of_command = resolve_name("depthray.cli.shells.completed_words:Command")
    named = {name: f"{function.partition(':')[0]}:build_parser" for name, (function, _) in COMMANDS.items()} | PARSERS
    commands = {}
    for name, function in named.items():
        parser = resolve_name(function)()
        about = COMMANDS[name][1] if name in COMMANDS else parser.description
        commands[name] = of_command(about, parser, "settings" if name == "serve" else "recipe")
    roots = {"recipe": "depthray.config.sections.whole_recipe:Recipe", "settings": "serve.settings:Settings"}
    return commands, {name: resolve_name(root) for name, root in roots.items()}


def _heartbeat(name: str) -> AbstractContextManager[object]:
    """Lines on a command that is silent for long; on a terminal some have a bar instead."""
    if name not in SILENT or (name.startswith("data") and sys.stderr.isatty()):
        return nullcontext()
    return Heartbeat(f"the result of `depthray {name}`")


def _fail(text: str, code: int) -> int:
    # One line, whatever names of files and keys have in them.
    print("depthray:", " ".join(text.splitlines()), file=sys.stderr)
    return code


def _resolve(name: str):  # type: ignore[no-untyped-def]
    if name not in COMMANDS:
        raise UsageError(f"no command '{name}'{did_you_mean(name, COMMANDS)}; see depthray --help")
    return resolve_name(COMMANDS[name][0])


def _disable_telemetry() -> None:
    """Keep third-party packages from calling home; the user's own setting wins."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


if __name__ == "__main__":
    sys.exit(main())
