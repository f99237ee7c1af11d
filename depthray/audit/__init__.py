"""What `depthray data check` and `depthray data stats` find in a data set."""
