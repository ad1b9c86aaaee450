"""Goes on with a run of the workflow that was killed: cancels the jobs that it left on the cluster,
waits until they are gone, unlocks the folder, and starts the same command again. What stands after
`--` is for snakemake; with nothing there, the last run's options are taken."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# So that `python scripts/resume.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import log, run
from unet.paths import Paths
from unet.planning.resume import resume


def work(args: argparse.Namespace, paths: Paths) -> None:
    known = {"gone": args.gone, "cancelled": args.cancelled}
    command, where = resume(args.folder or Path.cwd(), args.words, args.wait, **known)
    log.info("%s", shlex.join(command))
    if not args.stay:
        os.chdir(where)
        os.execv(command[0], command)  # in its place, so that signals reach it


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python scripts/resume.py",
        description=__doc__,
    )
    p.add_argument("--folder", type=Path, help="where snakemake was called (default: here)")
    p.add_argument("--wait", type=float, default=300.0, help="seconds to wait for jobs to end")
    p.add_argument(
        "--gone", action="store_true", help="a run that was started elsewhere is known to be dead"
    )
    p.add_argument(
        "--cancelled",
        action="store_true",
        help="no job is left in a queue other than SLURM, which is not asked",
    )
    p.add_argument("--stay", action="store_true", help="clear and unlock, but start nothing")
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    args = p.parse_args(given[:end])
    args.words, args.output, args.log = given[end + 1 :], Path(), None
    return run(args, work)


if __name__ == "__main__":
    sys.exit(main())
