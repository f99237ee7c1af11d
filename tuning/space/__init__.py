"""Search spaces: reading them, and checking them against a recipe."""
