"""What can go wrong through the user's input, each with the exit code of the command line.

A message says what is wrong, where (file, index, recipe key) and what to do. It is one line, and all the user sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DepthrayError(Exception):
    """A mistake or limit outside depthray's own code; printed without a traceback."""

    exit_code = 1


class UsageError(DepthrayError):
    """A wrong command line or recipe: unknown key, wrong type, contradictory values."""

    exit_code = 2  # as argparse exits on a wrong command line


class DataError(DepthrayError):
    """Data that cannot be used: missing, unreadable, wrong shape, dtype or unit."""

    exit_code = 3


class CheckpointError(DepthrayError):
    """A checkpoint that is missing, incomplete, altered or does not fit."""

    exit_code = 3


class ParityError(DepthrayError):
    """An export whose predictions differ from its checkpoint's by more than is allowed."""

    exit_code = 3


class DivergedError(DepthrayError):
    """Training whose loss stayed non-finite."""

    exit_code = 4


class ResourceError(DepthrayError):
    """Too few CPUs, GPUs, memory or disk for what was requested."""

    exit_code = 5


def error_of(text: str, exit_code: int) -> DepthrayError:
    """The error of another process, which sent its text and exit code: Ray would wrap the error itself."""
    error = DepthrayError(text)
    error.exit_code = exit_code
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a hint, ' (did you mean ...?)', or the choices if none is near."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (choose from: {', '.join(choices)})" if choices else ""


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: '1 frame', '2 frames'; `plural` where that is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
