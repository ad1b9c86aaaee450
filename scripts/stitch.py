"""Stitches the predicted tiles of one fold into segmentations, masks and a table of objects."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/stitch.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.ONE_HEAP)

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths, origin_of


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.config.stage_settings import StitchSettings
    from unet.data.records import read_manifest, wells_in
    from unet.data.store import OwnGrid, Prepared
    from unet.files import lock_of, locked, read_json
    from unet.prediction.objects.threshold import carried_threshold
    from unet.prediction.stitch.source_scale import ResampledTiles
    from unet.prediction.stitch.stitch import Outputs, stitch_dataset
    from unet.prediction.stitch.write_back import write_targets
    from unet.prediction.tiles.tile_store import Tiles

    settings = settings_of(args, StitchSettings)
    where = (args.dataset, args.model, args.fold)
    inputs = [paths.tiles_done(*where), paths.prepared_done(*where[:2])]
    origin, folds = origin_of(args.model), settings.thresholds_of
    # The thresholds that were chosen on the dataset the model was trained on.
    chosen = origin and [paths.segmentation_done(origin.dataset, origin.model, k) for k in folds]
    made_by = check_inputs(args, settings, [*inputs, *(chosen or ())])
    tiles, prepared = Tiles(paths.tiles(*where)), Prepared(paths.prepared(*where[:2]))
    if origin is not None:
        # The results have the pixel size of the user's files, not that of the network's input.
        prepared = OwnGrid(prepared.path)
        tiles = ResampledTiles(tiles.path, prepared)
        if chosen:
            settings = settings.with_section(threshold=carried_threshold(chosen))
    outputs = Outputs(
        segmentation=paths.segmentation(*where),
        done=paths.segmentation_done(*where),
        masks=paths.masks(*where),
        objects=paths.objects(*where),
    )
    manifest, write_back = paths.manifest(args.dataset), settings.stitch.write_back
    targets = None
    if write_back is not None:
        root = args.root or Path(read_json(paths.inputs(args.dataset))["root"])
        targets = write_targets(read_manifest(manifest), root, write_back)
    with locked(lock_of(outputs.segmentation), "stitching this fold"):
        stitch_dataset(
            tiles, prepared, outputs, settings, threads=args.threads, made_by=made_by,
            wells=wells_in(manifest), targets=targets,
        )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    p = parser("stitch", __doc__ or "", model=True, fold=True)
    p.add_argument(
        "--root", type=Path, help="folder of the raw files, if it has moved since the manifest"
    )
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
