"""What the workflow asks before it runs: which jobs, with how much memory, what is out of date.

In: a config and the files that are already there.
Out: targets, inputs and resources for the rules of Snakemake, and reasons for running a job again.

Start with `jobs.py`, then `resources.py`. `stale.py`, `untracked.py` and `snakemake_hooks.py` hook
into Snakemake's own planning. Loads neither torch nor dask, zarr, pandas or NumPy.
"""
