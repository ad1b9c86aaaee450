"""Raw image and label files, read by region, whatever their format.

In: the path of a TIFF, OME-TIFF, PNG or OME-Zarr.
Out: a lazy array in one order of axes, with its pixel size, or a one-line error that says what is
wrong with the file.

Start with `images.py` (what callers use), then `formats.py` (which reader takes which suffix). A
reader imports `raw.py`, never `formats.py`.
"""
