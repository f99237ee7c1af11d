"""Recordings of robots and cameras -> frames: topics, clocks, selection, cameras, a reader for each kind of file."""
