"""Checkpoints: what lies in one, writing, reading and choosing them."""
