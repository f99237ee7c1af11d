"""Cameras of frames: the canonical one that a network is trained in."""
