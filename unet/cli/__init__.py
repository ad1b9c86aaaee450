"""The command lines: the `unet` command, and what the scripts of the stages share.

In: the words of a command line.
Out: one call of the package, then an exit code and, for an error of the user, one line.

Start with `main.py` for `unet models` and `unet predict`, or with `stage.py`, through which every
script in `scripts/` runs its stage. `failures.py` writes what the console shows of a failed job.
"""
