"""Decides which images train, validate and test in each fold; earlier decisions are kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/splits.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import SplitsSettings
    from unet.data.kept_splits import splits_stage
    from unet.data.records import read_manifest

    target, manifest = paths.splits(args.dataset), paths.manifest(args.dataset)
    settings = settings_of(args, SplitsSettings)
    made_by = check_inputs(args, settings, [manifest])
    splits_stage(
        read_manifest(manifest),
        settings,
        splits=target,
        # A hidden file next to the output: the workflow deletes outputs before it remakes them.
        memory=target.with_name(".splits-kept.csv"),
        warnings=paths.warnings(args.dataset, "splits"),
    )
    provenance.write_sidecar(target, made_by)


def main(argv: list[str] | None = None) -> int:
    return run(parser("splits", __doc__ or "").parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
