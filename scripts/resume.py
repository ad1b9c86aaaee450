"""Resumes a run of the workflow that was killed: cancels the jobs that it left on the cluster,
waits until they have ended, unlocks the folder, and starts the same command again. Options after
`--` are passed to snakemake; without any, those of the last run are used."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# So that `python scripts/resume.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.arguments import Parser
from unet.cli.stage import log, run
from unet.paths import Paths
from unet.planning.resume import resume


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    known = {"gone": args.gone, "cancelled": args.cancelled}
    command, where = resume(args.folder or Path.cwd(), args.words, args.wait, **known)
    log.info("%s", shlex.join(command))
    if not args.stay:
        os.chdir(where)
        os.execv(command[0], command)  # replaces this process, so that signals reach snakemake


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(
        prog="python scripts/resume.py",
        description=__doc__,
    )
    p.add_argument("--folder", type=Path, help="where snakemake was called (default: here)")
    p.add_argument("--wait", type=float, default=300.0, help="seconds to wait for jobs to end")
    p.add_argument(
        "--gone", action="store_true", help="a run started on another machine has surely ended"
    )
    p.add_argument(
        "--cancelled",
        action="store_true",
        help="no jobs are left in a queue other than SLURM (which cannot be checked)",
    )
    p.add_argument("--stay", action="store_true", help="clean up and unlock, but start nothing")
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    args = p.parse_args(given[:end])
    args.words, args.output, args.log = given[end + 1 :], Path(), None
    return run(args, run_stage)


if __name__ == "__main__":
    sys.exit(main())
