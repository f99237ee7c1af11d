"""Model cards: what a network was trained on, how good it is, and whether an input is like what it has seen."""
