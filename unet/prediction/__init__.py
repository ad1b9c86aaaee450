"""Tiled prediction, stitching and instances."""
