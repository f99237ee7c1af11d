"""Scripts that kill processes and take storage away on purpose, and check what is left. See README.md."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The object store and the hostile request bodies are those of the tests.
sys.path += [str(ROOT / "tests" / "support" / name) for name in (".", "data_sets", "serving")]
