"""Ray Tune over recipes: spaces, trials, searchers and the report."""
