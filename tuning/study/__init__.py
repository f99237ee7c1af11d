"""A search in numbers: winner, gain, importance, budget, warnings."""
