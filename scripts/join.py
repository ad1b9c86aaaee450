"""Joins datasets: writes the tables of one that stands for their images, and copies none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/join.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.config.join_settings import JoinSettings
    from unet.data.join_stage import join_stage

    settings = settings_of(args, JoinSettings)
    inputs = [path for name in settings.members for path in paths.joined_inputs(name)]
    made_by = check_inputs(args, settings, inputs)
    join_stage(paths, args.dataset, settings, made_by)
    for table in (paths.manifest(args.dataset), paths.splits(args.dataset)):
        provenance.write_sidecar(table, made_by)


def main(argv: list[str] | None = None) -> int:
    return run(parser("join", __doc__ or "").parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
