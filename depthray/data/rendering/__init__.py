"""Synthetic rooms with exact depth, rendered on the CPU."""
