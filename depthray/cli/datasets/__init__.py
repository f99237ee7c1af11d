"""What the subcommands of `depthray data` are made of."""
