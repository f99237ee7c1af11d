"""`--submit`: a command as a job of a running Ray cluster, what `ray job submit` does with the right settings.

Code goes to the cluster, and the YAML files that the command names; data and runs lie there already. The job runs the
same command: `python -m depthray train ... --out /an/absolute/path --address auto`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import depthray
from cluster.jobs import follow
from depthray.cli import data, submit_flags
from depthray.cli.submit_flags import JobCommand
from depthray.errors import UsageError
from depthray.storage import remote
from depthray.training import preflight

PACKAGES = ("depthray", "cluster", "tuning", "serve")
# `ray job stop` then asks as Ctrl-C does, which every command answers with a checkpoint, and waits until it is written.
STOP_VARIABLES = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
# Settings of the submitter that a job takes along. No credentials: those belong to the nodes, and a job's environment
# is shown on the dashboard.
FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
FORWARDED_PREFIXES = ("RAY_TRAIN_", "NCCL_", "GLOO_")


class Job(NamedTuple):
    """A job to be submitted."""

    name: str
    words: list[str]  # of the command, as it runs on the cluster
    files: dict[str, Path]  # name in the job's working directory -> file of this machine
    resources: dict[str, float]
    again: list[str]  # the command that goes on where this one stops


def main(word: str, command: JobCommand, argv: Sequence[str]) -> int:
    """Submit a command and follow it. Returns its exit code."""
    flags, words = submit_flags.split(argv)
    job = plan(word, command, words, flags)
    client = follow.connect(flags.submit)
    with ship(job) as folder:
        variables = job_variables()
        follow.submit_job(
            client,
            entrypoint=shlex.join(["python", "-m", "depthray", *word.split(), *job.words]),
            submission_id=job.name,
            runtime_env={"working_dir": str(folder), "env_vars": variables},
            **job.resources,
        )
    _print_job(job, client.get_address(), variables)
    return 0 if flags.no_wait else follow.follow_job(client, job.name, again=_format_resume(job, client.get_address()))


def plan(word: str, command: JobCommand, words: list[str], flags: argparse.Namespace) -> Job:
    """The job that a command line asks for. Raises what is wrong with it, before anything is sent."""
    args = _parse(word, command, words)
    if getattr(args, "address", None) not in (None, "auto"):
        raise UsageError(f"--address {args.address}: a job uses the cluster it is submitted to; leave out --address")
    _check_recipe(word, command, args)
    words = settle(word, command, words, below=flags.storage)
    told = (getattr(args, key, None) for key in ("root", "recipe", "checkpoint", "resume", "out"))
    about = Path(next(each for each in told if isinstance(each, str | Path) and str(each)))  # a resume may be a flag
    name = "-".join([*word.split(), about.stem, time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)])
    sent, files = _replace_files(command, words, args)
    alone = word == "evaluate" or getattr(args, "local", False)  # the command's own process does the work
    resources = {"entrypoint_num_cpus": flags.job_cpus or float(alone), "entrypoint_num_gpus": flags.job_gpus or 0.0}
    again = ["depthray", *word.split(), *_resume_arguments(word, command, words)]
    for flag in ("job_cpus", "job_gpus"):
        if value := getattr(flags, flag):
            again += [f"--{flag.replace('_', '-')}", f"{value:g}"]
    return Job(name, sent, files, {key: value for key, value in resources.items() if value}, again)


def settle(word: str, command: JobCommand, words: Sequence[str], *, below: str | None = None) -> list[str]:
    """A command line that means the same on every node: absolute paths, an --out, and the cluster it is on.

    Raises UsageError for a relative path: a job's working directory is temporary, and what is written there is lost.
    """
    found, args = list(words), _parse(word, command, words)
    below = below or os.environ.get("DEPTHRAY_STORAGE")
    _check_paths(word, command, found, args, below)
    if word in ("train", "tune") and not args.resume or args.out and word != "data convert":
        out = str(args.out or _new_run_name(word, args))
        if not _is_absolute(out):
            found = [*_without("--out", found), "--out", f"{_check_storage(below).rstrip('/')}/{out}"]
    if not getattr(args, "address", "none") and not getattr(args, "local", False):
        found += ["--address", "auto"]
    return found


def _parse(word: str, command: JobCommand, words: Sequence[str]) -> argparse.Namespace:
    parser: argparse.ArgumentParser = resolve_name(command.parser)()
    if word == "data convert":
        return data.parse_with_overrides(parser, list(words))
    args = parser.parse_intermixed_args(list(words))
    if "=" in getattr(args, "recipe", ""):
        args.overrides, args.recipe = [args.recipe, *args.overrides], ""
    return args


def _check_recipe(word: str, command: JobCommand, args: argparse.Namespace) -> None:
    """Raise what the command itself would say of its recipe, and what only a job cannot do."""
    if word == "train" and args.resume and not args.out:
        raise UsageError("--resume needs --out RUN, the folder of the run to go on with")
    if not command.check or args.resume and not args.recipe:
        return  # the run to go on with lies on the cluster
    resolve_name(command.check)(argparse.Namespace(**{**vars(args), "resume": None}))
    recipe = preflight.load(args.recipe, [override for override in args.overrides if not override.startswith("data.root=")])
    if recipe.data.root and not args.data and not _is_absolute(recipe.data.root):
        raise UsageError(f"{args.recipe}: data.root={recipe.data.root} is relative; {_ADVICE}")
    for key, value in recipe.model.options.items():
        if isinstance(value, str) and Path(value).suffix and Path(value).is_file() and not _is_absolute(value):
            raise UsageError(f"model.{key}={value} is a file of this machine's folder; {_ADVICE}")


_ADVICE = "a job runs on the cluster: give an absolute path that its nodes see, or one like s3://bucket/folder"


def _check_paths(word: str, command: JobCommand, words: list[str], args: argparse.Namespace, below: str | None) -> None:
    """Raise UsageError for a relative path, but for an --out below a storage."""
    for key in command.paths:
        value = getattr(args, key, None)
        if value is None or isinstance(value, bool) or _is_absolute(str(value)):
            continue
        if key == "out" and word != "data convert":
            _check_storage(below, f"--out {value} is relative")
            continue
        raise UsageError(f"{'' if key in ('checkpoint', 'root') else '--'}{key} {value} is relative; {_ADVICE}")
    for given in words:
        if given.startswith("data.root=") and not _is_absolute(given.partition("=")[2]):
            raise UsageError(f"{given} is relative; {_ADVICE}")


def _check_storage(below: str | None, why: str = "no --out is given") -> str:
    """Where the runs of jobs lie. Raises UsageError where that is not said, or is itself relative."""
    if not below:
        raise UsageError(
            f"{why}, and a job's working directory is temporary; give an absolute --out that all nodes see "
            "(/shared/runs/x, s3://bucket/x), or --storage or DEPTHRAY_STORAGE, the folder of all runs"
        )
    if not _is_absolute(below):
        raise UsageError(f"--storage {below} is relative; {_ADVICE}")
    return below


def _is_absolute(path: str) -> bool:
    return remote.is_remote(path) or Path(path).is_absolute()


def _new_run_name(word: str, args: argparse.Namespace) -> str:
    return "tune-" * (word == "tune") + f"{Path(args.recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _without(flag: str, words: Sequence[str]) -> list[str]:
    """The words without a flag and its value."""
    places = [place for place, word in enumerate(words) if word == flag]
    gone = {*places, *(place + 1 for place in places)}
    return [word for place, word in enumerate(words) if place not in gone and not word.startswith(f"{flag}=")]


def _replace_files(
    command: JobCommand, words: list[str], args: argparse.Namespace
) -> tuple[list[str], dict[str, Path]]:
    """The words with the YAML files among them named as in the job's working directory, and which those are."""
    sent, files = list(words), {}
    for key in command.files:
        text = getattr(args, key)
        if text and Path(text).suffix in (".yaml", ".yml"):
            name = f"{key}/{Path(text).name}"
            files[name] = Path(text)
            if key == "recipe":
                sent[sent.index(text)] = name
            else:
                sent = [*_without(f"--{key}", sent), f"--{key}", name]
    return sent, files


def _resume_arguments(word: str, command: JobCommand, words: list[str]) -> list[str]:
    """The words that go on with what these began."""
    words = _without("--address", words)
    if word == "train":
        return words if "--resume" in words else [*words, "--resume"]
    if word == "tune" and (args := _parse(word, command, words)).out:
        return ["--resume", remote.normalize_address(args.out) if remote.is_remote(args.out) else str(args.out)]
    return words  # what is there already is not made again


@contextmanager
def ship(job: Job) -> Iterator[Path]:
    """A folder with what a job takes along: our packages from wherever this process has them, and its files.

    Not the working directory as it is: nothing can slip in, and an installed depthray submits as a checkout does.
    """
    source = Path(depthray.__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="depthray-job-") as name:
        folder = Path(name)
        for package in PACKAGES:
            shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        about = folder / f"depthray-{depthray.__version__}.dist-info"
        about.mkdir()  # nodes that have the dependencies only can then tell its version
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: depthray\nVersion: {depthray.__version__}\n")
        for target, path in job.files.items():
            (folder / target).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / target)
        yield folder


def job_variables() -> dict[str, str]:
    """The environment of a job."""
    taken = {key: value for key, value in os.environ.items() if key in FORWARDED or key.startswith(FORWARDED_PREFIXES)}
    return {**STOP_VARIABLES, **taken}


def _format_resume(job: Job, address: str) -> str:
    return shlex.join([*job.again, "--submit", address])


def _print_job(job: Job, address: str, variables: dict[str, str]) -> None:
    """Say how to follow, stop and resume the job."""
    print(f"job          {job.name} on {address}")
    print(f"environment  {' '.join(f'{key}={value}' for key, value in sorted(variables.items()))}")
    print(f"follow       {follow.ray_job_command('logs --follow', job.name, address)}")
    print(f"stop         {follow.ray_job_command('stop', job.name, address)}")
    print(f"resume       {_format_resume(job, address)}", flush=True)
