"""The stitch stage: tiles become a segmentation.

In: `tiles.zarr` of a fold.
Out: `segmentation.zarr` (probabilities and labels, OME-Zarr), `masks/*.tif`, `objects.csv`.

Start with `stitch.py`, then `stitch_image.py` (one image). Later stages read the result
through `segmentation.py`; `seams.py` measures the jumps at the borders of tiles.
"""
