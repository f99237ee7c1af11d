"""The reports of `depthray data check` and `depthray data stats` on a data set."""
