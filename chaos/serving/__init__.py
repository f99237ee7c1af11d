"""Harm to a running `depthray serve`: kills, faults, overload, hostile clients, promotions under load."""
