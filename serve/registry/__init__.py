"""Versions of models: storing, checking and promoting them."""
