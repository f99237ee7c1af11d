"""Exporting a checkpoint for other runtimes, with a gate that compares the two."""
