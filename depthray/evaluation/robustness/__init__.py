"""Scores of a network on frames that are made worse: how fast they fall, and by what."""
