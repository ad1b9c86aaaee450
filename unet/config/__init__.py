"""What a run is: the typed config, its checks, and the settings that each stage gets from it.

In: a YAML file, or a mapping that Snakemake has read.
Out: a frozen `Config`, or one line per mistake; for each stage a mapping of its settings.

Start with `load.py` (the only way to a config), then `sections.py` (every key, with its type, range
and default) and `stage_settings.py` (what each stage is given). Loads neither torch nor dask, zarr,
pandas or NumPy, so that a dry run is fast.
"""
