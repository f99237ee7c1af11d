"""Harm to training: killed workers, nodes and drivers, storage that fails, disks that are full."""
