"""Limits at Ray Serve's HTTP proxy."""
