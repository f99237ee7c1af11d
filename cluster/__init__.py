"""Ray Train around depthray: where training runs, not what it computes."""
