"""What `depthray new` writes: a network, a data set form and a loss term to start from."""
