"""Configuration of a run: the typed config, its checks, and each stage's settings.

In: a YAML file, or a mapping that Snakemake has read.
Out: a frozen `Config`, or one line per mistake; for each stage a mapping of its settings.

Start with `load.py` (which makes the config), then `sections.py` (every key, with its type, range
and default) and `stage_settings.py` (the settings of each stage). Loads neither torch nor dask,
zarr, pandas or NumPy, so that a dry run is fast.
"""
