"""Writes a dataset's normalised images and label arrays into one zarr store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/prepare.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.ONE_HEAP)

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import PrepareSettings
    from unet.data.prepare import prepare_stage

    settings = settings_of(args, PrepareSettings)
    made_by = check_inputs(args, settings, [paths.manifest(args.dataset)])
    prepare_stage(
        paths.manifest(args.dataset),
        paths.inputs(args.dataset),
        paths.prepared(args.dataset),
        paths.prepared_done(args.dataset),
        settings,
        threads=args.threads,
        memory_bytes=int(args.memory_gb * 1e9),
        root=args.root,
        made_by=made_by,
    )


def main(argv: list[str] | None = None) -> int:
    p = parser("prepare", __doc__ or "")
    p.add_argument(
        "--root", type=Path, help="folder of the raw files, if it has moved since the manifest"
    )
    p.add_argument("--memory-gb", type=float, default=4.0, help="memory for pixels, in GB")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
