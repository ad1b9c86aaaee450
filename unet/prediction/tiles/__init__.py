"""The predict stage: runs every tile of every image through the network, once.

In: one or more models, and images of the prepared store.
Out: `tiles.zarr`: per image the probabilities of its tiles' cores, [tile, class, (z,) y, x].

Start with `predict.py`, then `window_plans.py` (chooses the windows) and `worker.py` (predicts a
batch). `finished_tiles.py` lets a stopped run continue, `cluster.py` predicts on dask clusters.
"""
