"""Checkpoints: their files, how they are written and read, and which of a run is the best or latest."""
