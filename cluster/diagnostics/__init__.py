"""`depthray doctor --address`: the health of a cluster and its nodes."""
