"""`--submit`: run a command as a job of a Ray cluster, as `ray job submit` does, with the settings training needs.

The code is sent to the cluster with one's own and the YAML files that the command names; data and runs are there.
The job runs the same command: `python -m depthray train ... --out /an/absolute/path --address auto`.
"""

from __future__ import annotations

import argparse
import os
import re
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
from cluster.jobs.shipped_code import files_to_ship
from depthray.cli.datasets import conversion
from depthray.cli.flags import job_flags
from depthray.cli.flags.job_flags import JobCommand
from depthray.config import own_code
from depthray.errors import UsageError
from depthray.storage import remote
from depthray.training import preflight

PACKAGES = ("depthray", "cluster", "tuning", "serve")
# `ray job stop` then sends SIGINT, on which every command saves a checkpoint, and waits until it is written.
STOP_VARIABLES = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
# Variables of the submitter that a job gets. No credentials: those belong to the nodes, and the dashboard shows a job's
# environment.
FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
FORWARDED_PREFIXES = ("RAY_TRAIN_", "NCCL_", "GLOO_")


class Job(NamedTuple):
    """A job to be submitted."""

    name: str
    arguments: list[str]  # of the command, as it runs on the cluster
    files: dict[str, Path]  # name in the job's working directory -> file of this machine
    resources: dict[str, float]
    resume: list[str]  # the command that continues where this one stops


def main(name: str, command: JobCommand, argv: Sequence[str]) -> int:
    """Submit a command and follow it. Returns its exit code."""
    flags, arguments = job_flags.split(argv)
    job = plan(name, command, arguments, flags)
    client = follow.connect(flags.submit)
    with ship(job) as folder:
        variables = job_variables()
        follow.submit_job(
            client,
            entrypoint=shlex.join(["python", "-m", "depthray", *name.split(), *job.arguments]),
            submission_id=job.name,
            runtime_env={"working_dir": str(folder), "env_vars": variables},
            **job.resources,
        )
    _print_job(job, client.get_address(), variables)
    return 0 if flags.no_wait else follow.follow_job(client, job.name, resume=_format_resume(job, client.get_address()))


def plan(name: str, command: JobCommand, arguments: list[str], flags: argparse.Namespace) -> Job:
    """The job of a command line. Raises the error the command itself would raise, before anything is sent."""
    args = _parse(name, command, arguments)
    if getattr(args, "address", None) not in (None, "auto"):
        raise UsageError(f"--address {args.address}: a job uses the cluster it is submitted to; leave out --address")
    own_code.allow([getattr(args, "source", None) or "", getattr(args, "form", None) or ""])
    _check_recipe(name, command, args)
    arguments = settle(name, command, arguments, below=flags.storage)
    # Where the command's own process does the work; others only wait for their workers, and need no CPU for that.
    is_one = name == "predict" and (args.workers or 1) == 1
    is_alone = name == "evaluate" or is_one or getattr(args, "local", False)
    resources = {"entrypoint_num_cpus": flags.job_cpus or float(is_alone), "entrypoint_num_gpus": flags.job_gpus or 0.0}
    resume = ["depthray", *name.split(), *_resume_arguments(name, command, arguments)]
    for flag in ("job_cpus", "job_gpus"):
        if value := getattr(flags, flag):
            resume += [f"--{flag.replace('_', '-')}", f"{value:g}"]
    arguments, files = _replace_files(command, arguments, args)
    files |= files_to_ship(own_code.share().names)  # that the recipe and the space name, which were read above
    resources = {key: value for key, value in resources.items() if value}
    return Job(_new_job_name(name, args), arguments, files, resources, resume)


def _new_job_name(name: str, args: argparse.Namespace) -> str:
    """A name after the command and what it is about: its data, recipe or run."""
    subjects = (getattr(args, key, None) for key in ("root", "recipe", "checkpoint", "resume", "out"))
    subject = Path(
        next(each for each in subjects if isinstance(each, str | Path) and str(each))
    )  # --resume may be True
    # Ray refuses a name that it has seen before, also of a job that has ended.
    return "-".join([*name.split(), subject.stem, time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)])


def settle(name: str, command: JobCommand, arguments: Sequence[str], *, below: str | None = None) -> list[str]:
    """A command line that means the same on every node: absolute paths, an --out, and the cluster it is on.

    Raises UsageError for a relative path: a job's working directory is temporary, and what is written there is lost.
    """
    settled, args = list(arguments), _parse(name, command, arguments)
    below = below or os.environ.get("DEPTHRAY_STORAGE")
    _check_paths(name, command, settled, args, below)
    if (name in ("train", "tune") and not args.resume) or (args.out and name != "data convert"):
        out = str(args.out or _new_run_name(name, args))
        if not _is_absolute(out):
            settled = [*_without("--out", settled), "--out", f"{_check_storage(below).rstrip('/')}/{out}"]
    # Without an address the command would start a local Ray on the node that runs the job.
    if not getattr(args, "address", "none") and not getattr(args, "local", False):
        settled += ["--address", "auto"]
    return settled


def _parse(name: str, command: JobCommand, arguments: Sequence[str]) -> argparse.Namespace:
    parser: argparse.ArgumentParser = resolve_name(command.parser)()
    if name == "data convert":
        return conversion.parse_with_overrides(parser, list(arguments))
    args = parser.parse_intermixed_args(list(arguments))
    if "=" in getattr(args, "recipe", ""):  # an override, where --resume makes a recipe unnecessary
        args.overrides, args.recipe = [args.recipe, *args.overrides], ""
    return args


def _check_recipe(name: str, command: JobCommand, args: argparse.Namespace) -> None:
    """Raise the command's own errors about its recipe, and those about files that a job cannot read."""
    if name == "train" and args.resume and not args.out:
        raise UsageError("--resume needs --out RUN, the folder of the run to resume")
    if not command.check or (args.resume and not args.recipe):
        return  # the run to resume is on the cluster
    # As if it were a new run: whether there is one to resume can be seen only on the cluster.
    resolve_name(command.check)(argparse.Namespace(**{**vars(args), "resume": None}))
    recipe = preflight.load(
        args.recipe, [override for override in args.overrides if not override.startswith("data.root=")]
    )
    relative = [root for root in recipe.data.roots if not _is_absolute(root)]
    if relative and not args.data:
        key = "the root of one of data.sets, " if recipe.data.sets else "data.root="
        raise UsageError(f"{args.recipe}: {key}{relative[0]} is relative; {_ADVICE}")
    weights = recipe.model.weights_path
    if weights and Path(weights).exists() and not _is_absolute(weights):
        raise UsageError(f"model.weights={weights} is on this machine alone; {_ADVICE}")
    if relative := [path for path in recipe.eval.also if not _is_absolute(path)]:
        raise UsageError(f"eval.also={relative[0]} is relative; {_ADVICE}")


_ADVICE = "a job runs on the cluster: give an absolute path that its nodes see, or one like s3://bucket/folder"


def _check_paths(
    name: str, command: JobCommand, arguments: list[str], args: argparse.Namespace, below: str | None
) -> None:
    """Raise UsageError for a relative path, but for an --out below a storage."""
    for key in command.paths:
        value = getattr(args, key, None)
        if value is None or isinstance(value, bool) or _is_absolute(str(value)):
            continue
        if key == "out" and name != "data convert":
            _check_storage(below, f"--out {value} is relative")
            continue
        raise UsageError(f"{'' if key in ('checkpoint', 'root') else '--'}{key} {value} is relative; {_ADVICE}")
    for argument in arguments:
        if re.match(r"data\.(root|sets\.\d+\.root)=", argument) and not _is_absolute(argument.partition("=")[2]):
            raise UsageError(f"{argument} is relative; {_ADVICE}")


def _check_storage(below: str | None, why: str = "no --out is given") -> str:
    """The folder of the runs of jobs. Raises UsageError where it is not given, or is relative."""
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


def _new_run_name(name: str, args: argparse.Namespace) -> str:
    return "tune-" * (name == "tune") + f"{Path(args.recipe).stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _without(flag: str, arguments: Sequence[str]) -> list[str]:
    """The arguments without a flag and its value."""
    indices = [index for index, text in enumerate(arguments) if text == flag]
    removed = {*indices, *(index + 1 for index in indices)}
    return [text for index, text in enumerate(arguments) if index not in removed and not text.startswith(f"{flag}=")]


def _replace_files(
    command: JobCommand, arguments: list[str], args: argparse.Namespace
) -> tuple[list[str], dict[str, Path]]:
    """The arguments with the YAML files among them named as in the job's working directory, and those files."""
    sent, files = list(arguments), {}
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


def _resume_arguments(name: str, command: JobCommand, arguments: list[str]) -> list[str]:
    """The arguments that resume what these have started."""
    arguments = _without("--address", arguments)
    if name == "train":
        return arguments if "--resume" in arguments else [*arguments, "--resume"]
    if name == "tune" and (args := _parse(name, command, arguments)).out:
        return ["--resume", remote.normalize_address(args.out) if remote.is_remote(args.out) else str(args.out)]
    return arguments  # a repeated conversion or evaluation skips what is complete


@contextmanager
def ship(job: Job) -> Iterator[Path]:
    """A folder with what is sent with a job: our packages, from a checkout or an installation, and its files.

    Not the working directory itself, which may hold data and secrets, and is no checkout where depthray is installed.
    """
    source = Path(depthray.__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="depthray-job-") as temporary:
        folder = Path(temporary)
        for package in PACKAGES:
            shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        info = folder / f"depthray-{depthray.__version__}.dist-info"
        info.mkdir()  # so that nodes with the dependencies only report the version as installed
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: depthray\nVersion: {depthray.__version__}\n")
        for target, path in job.files.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / target)
        yield folder


def job_variables() -> dict[str, str]:
    """The environment of a job."""
    forwarded = {
        key: value for key, value in os.environ.items() if key in FORWARDED or key.startswith(FORWARDED_PREFIXES)
    }
    return {**STOP_VARIABLES, **forwarded}


def _format_resume(job: Job, address: str) -> str:
    return shlex.join([*job.resume, "--submit", address])


def _print_job(job: Job, address: str, variables: dict[str, str]) -> None:
    """Print how to follow, stop and resume the job."""
    print(f"job          {job.name} on {address}")
    print(f"environment  {' '.join(f'{key}={value}' for key, value in sorted(variables.items()))}")
    print(f"follow       {follow.ray_job_command('logs --follow', job.name, address)}")
    print(f"stop         {follow.ray_job_command('stop', job.name, address)}")
    print(f"resume       {_format_resume(job, address)}", flush=True)
