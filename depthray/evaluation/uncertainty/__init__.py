"""Whether a network knows where it is wrong, and how wrong: sparsification, coverage, reliability."""
