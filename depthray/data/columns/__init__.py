"""Frames as arrays: their facts, sets of their numbers, and orders without a table of them."""
