"""Several data sets in one run: read as one, and the shares that they have of an epoch."""
