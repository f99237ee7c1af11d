"""Checkpoints compared on the same frames, in pairs."""
