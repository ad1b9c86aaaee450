"""Prepares raw files for training and prediction, and defines the geometry of tiles.

In: the images and labels of a dataset, as `unet.io` reads them.
Out: the manifest, the splits, and the prepared store: normalised images [C, (Z,) Y, X] and their
label arrays [(Z,) Y, X], one chunk per tile.

Start with `layouts.py` (where the files are), `manifest.py`, `splits.py` and `prepare.py`, one per
step. `store.py` reads and writes the store, `tiling.py` says where windows lie.
"""
