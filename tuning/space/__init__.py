"""Search spaces: their YAML files, and how they are checked against a recipe."""
