"""The suffixes of files with images, for commands that choose among the files of a folder; imports nothing slow."""

from __future__ import annotations

WEB = (".jpg", ".jpeg", ".png", ".webp")
PILLOW = (".tif", ".tiff", ".bmp", ".gif", ".ppm", ".heic", ".heif")
PHOTOS = (*WEB, *PILLOW)
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp")
