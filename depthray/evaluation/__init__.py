"""Scores of depth and masks under named protocols."""
