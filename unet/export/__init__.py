"""Writes results in formats that people use: OME-Zarr, TIFF, GeoJSON, ImageJ ROIs, object tables.

In: labels [(Z,) Y, X] and probabilities [C, (Z,) Y, X], in blocks, with their pixel size.
Out: files that napari, QuPath and Fiji read.

Start with `ome_zarr_writer.py` and `tiff_writer.py` for images, `object_table.py` for the
measurements of objects, `outlines.py` for their outlines.
"""
