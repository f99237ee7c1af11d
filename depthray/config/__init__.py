"""Recipes: their schema, reading them from YAML, dotted overrides."""
