"""Metrics of a segmentation against its labels, and how sure their means are."""
