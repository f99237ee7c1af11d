"""Depth completion, scored: against the number of samples, by region, and beside fills that use no network."""
