"""The flag of commands that open a model: `--trust`, for those that come with code."""

from __future__ import annotations

import argparse


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag to a command's parser."""
    about = "run code that comes with the model, which could do anything on this machine: you know who made it"
    parser.add_argument("--trust", action="store_true", help=about)
