"""The words of the command line, one file each; `python -m depthray` finds them by its table."""
