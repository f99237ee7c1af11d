"""The flags that run a command as a job of a cluster: `--submit [ADDRESS]` and the flags it takes."""

from __future__ import annotations

import argparse
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from depthray.errors import UsageError

FLAG = "--submit"
SUBMIT_ONLY_FLAGS = ("--storage", "--no-wait", "--job-cpus", "--job-gpus")
ABBREVIATIONS = {FLAG[:end] for end in range(len("--su"), len(FLAG) + 1)}  # as argparse lets it be abbreviated
ADDRESS = re.compile(r"\w+://\S+|[\w.-]+:\d+|\[[0-9a-f:]+\]:\d+")


class JobCommand(NamedTuple):
    """A command that can be a job. Its functions are named as text, "module:function", and imported only when used."""

    parser: str
    paths: tuple[str, ...]  # arguments that name a path on the cluster
    files: tuple[str, ...] = ()  # arguments that may name a YAML file of this machine
    check: str = ""  # takes the parsed arguments and raises what is wrong with their recipe
    needs: str = ""  # a flag without which the command line is no job, and stays as it is where it runs inside of one


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a command's parser, for its help; `depthray.__main__` removes them before the command runs."""
    add = parser.add_argument_group("as a job of a running Ray cluster").add_argument
    where = "submit there: the dashboard, http://HOST:8265 (default: $RAY_API_SERVER_ADDRESS, else this machine)"
    add(FLAG, nargs="?", const="", metavar="ADDRESS", help=where)
    add("--storage", metavar="PATH", help="with --submit: folder of a relative --out (default: $DEPTHRAY_STORAGE)")
    add("--no-wait", action="store_true", help="with --submit: do not follow the job's log")
    add("--job-cpus", type=float, metavar="N", help="with --submit: CPUs of the command's own process")
    add("--job-gpus", type=float, metavar="N", help="with --submit: GPUs of the command's own process")


def is_requested(arguments: Sequence[str]) -> bool:
    """Whether a command line is to run as a job. Raises UsageError for a flag that needs --submit, without it."""
    given = [argument.partition("=")[0] for argument in arguments]
    if ABBREVIATIONS.intersection(given):
        return True
    if stray := next((flag for flag in given if flag in SUBMIT_ONLY_FLAGS), None):
        raise UsageError(f"{stray} needs {FLAG}; give both, or neither")
    return False


def is_given(flag: str, arguments: Sequence[str]) -> bool:
    """Whether a command line has a flag, by its whole name; "" is always given."""
    return not flag or flag in [argument.partition("=")[0] for argument in arguments]


def is_inside_job() -> bool:
    """Whether this process is the entry point of a job, submitted by us or by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def split(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of the submission, and the arguments of the command without them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # --help and all else are the command's
    add_flags(parser)
    return parser.parse_known_args(list(_join_address(arguments)))


def _join_address(arguments: Sequence[str]) -> Iterator[str]:
    """`--submit ADDRESS` as one argument, and `--submit` before anything that is no address as `--submit=`.

    For argparse would take the recipe in `train --submit demo` for the address.
    """
    arguments = [*arguments, ""]
    skip = False
    for argument, following in itertools.pairwise(arguments):
        flag, equals, value = argument.partition("=")
        if skip:
            skip = False
        elif flag not in ABBREVIATIONS:
            yield argument
        elif equals:
            yield f"{FLAG}={value}"
        else:
            skip = bool(ADDRESS.fullmatch(following))
            yield f"{FLAG}={following if skip else ''}"
