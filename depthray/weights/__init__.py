"""Where networks start: files, runs, downloads and installed packages of weights, and what of them fits a network."""
