"""A search in numbers: outcomes, winner, gain, importance, budget, warnings."""
