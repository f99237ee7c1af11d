"""Metrics for Prometheus, and a dashboard of them."""
