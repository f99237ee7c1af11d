"""Photographs in; PNG, npy, point clouds, contact sheets and plots out."""
