"""Stitches the predicted tiles of one fold into segmentations, masks and a table of objects."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/stitch.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.command import parser, run, settings_of
from unet.paths import Paths


def work(args: argparse.Namespace, paths: Paths) -> None:
    from unet.data.store import Prepared
    from unet.prediction.stitch import Outputs, stitch_dataset
    from unet.prediction.stitch_image import StitchSettings
    from unet.prediction.tiles import Tiles
    from unet.slices import stitch

    settings = settings_of(args, lambda c: stitch(c, args.dataset, args.model))
    where = (args.dataset, args.model, args.fold)
    stitch_dataset(
        Tiles(paths.tiles(*where)),
        Prepared(paths.prepared(args.dataset)),
        Outputs(
            segmentation=paths.segmentation(*where),
            done=paths.segmentation_done(*where),
            masks=paths.masks(*where),
            objects=paths.objects(*where),
        ),
        StitchSettings.of(settings),
        threads=args.threads,
    )


def main(argv: list[str] | None = None) -> int:
    p = parser("stitch", __doc__ or "", model=True, fold=True)
    return run(p.parse_args(argv), work)


if __name__ == "__main__":
    sys.exit(main())
