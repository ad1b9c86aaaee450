"""The metrics: small pure functions, one file per family, each with its formula and source.

In: class maps and instance ids [(Z,) Y, X], or the contingency table of two id arrays.
Out: numbers, also as sums that can be added over the blocks of an image.

Start with `pixel.py` (from a confusion matrix) and `instance.py` (from a contingency table).
`rows.py` defines the rows in which they are written.
"""
