"""Decides which images train, validate and test in each fold; earlier decisions are kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/splits.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def work(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import checked
    from unet.config.data_settings import SplitsSettings
    from unet.data.kept_splits import splits_stage
    from unet.data.records import read_manifest

    target, manifest = paths.splits(args.dataset), paths.manifest(args.dataset)
    settings = settings_of(args, SplitsSettings)
    made_by = checked(args, settings, [manifest])
    splits_stage(
        read_manifest(manifest),
        settings,
        splits=target,
        # Beside the output, hidden: the workflow deletes outputs before it makes them again.
        memory=target.with_name(".splits-kept.csv"),
        warnings=paths.warnings(args.dataset, "splits"),
    )
    provenance.write_sidecar(target, made_by)


def main(argv: list[str] | None = None) -> int:
    return run(parser("splits", __doc__ or "").parse_args(argv), work)


if __name__ == "__main__":
    sys.exit(main())
