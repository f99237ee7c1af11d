"""Ray Serve around depthray: a checkpoint answers HTTP."""
