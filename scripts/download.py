"""Downloads a public dataset, unless it is there already."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/download.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.config.data_settings import DownloadSettings
    from unet.data.download import download_set
    from unet.files import write_sentinel

    settings = settings_of(args, DownloadSettings)
    made_by = check_inputs(args, settings, [])
    key = f"datasets.{args.dataset}.download_from"
    found = download_set(settings.name, args.root, args.source, key)
    write_sentinel(
        paths.download_done(args.dataset),
        settings.version,
        {name: {"sha256": value} for name, value in found.hashes.items()},
        made_by,
        name=settings.name,
    )


def main(argv: list[str] | None = None) -> int:
    p = parser("download", __doc__ or "")
    p.add_argument("--root", type=Path, default=Path(), help="folder that holds the dataset's own")
    p.add_argument("--from", dest="source", default="", help="another address, or a file or folder")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
