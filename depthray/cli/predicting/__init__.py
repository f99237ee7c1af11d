"""The parts of `depthray predict`: which images and videos, and the files that it writes of each."""
