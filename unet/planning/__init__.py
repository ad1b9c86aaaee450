"""Planning of the workflow: which jobs to run, how much memory they need, what is out of date.

In: a config and the existing files.
Out: targets, inputs and resources for Snakemake's rules, and reasons for running a job again.

Start with `jobs.py`, then `sources.py` (raw files) and `resources.py`. `stale.py`, `untracked.py`
and `snakemake_hooks.py` hook into Snakemake's own planning. Loads neither torch nor dask, zarr,
pandas or NumPy.
"""
