"""`python -m serve.ros`, which is `depthray ros`."""

from __future__ import annotations

import sys

from depthray.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["ros", *sys.argv[1:]]))
