"""The command lines: the `unet` command, and the shared code of the stages' scripts.

In: the arguments of a command line.
Out: one call of the package, then an exit code and, for a user's mistake, a one-line message.

Start with `main.py` for `unet models` and `unet predict`, or with `stage.py`, which every script in
`scripts/` uses to run its stage. `failures.py` writes the console message for a failed job.
`run_command.py` is `unet run`: `run_process.py` starts Snakemake, `run_events.py` is what it tells,
`run_follow.py` follows it, `run_view.py` shows it.
"""
