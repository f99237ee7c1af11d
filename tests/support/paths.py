"""Where the checkout and the files of the tests are, whichever folder a test is in."""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).resolve().parent  # data that tests read is next to this module
ROOT = next(folder for folder in FILES.parents if (folder / "pyproject.toml").is_file())
