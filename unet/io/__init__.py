"""Reads raw image and label files of all formats, region by region.

In: the path of a file of a format in `formats.py`, or of an array in a file (`array_paths.py`).
Out: a lazy array in a fixed order of axes, with its pixel size, or a one-line error that says what
is wrong with the file.

Start with `images.py` (what callers use), then `formats.py` (which reader handles which suffix).
Readers import `raw.py`, never `formats.py`.
"""
