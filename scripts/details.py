"""Writes the objects, class confusions and probabilities behind a model's scores.

Reads the segmentations of all tested folds and the labels. Writes matches.csv, confusion.csv and
thresholds.csv.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# The package need not be installed: this file's parent folder is the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.ONE_HEAP)

from unet import provenance
from unet.cli.stage import parser, run, settings_of
from unet.config.details_settings import DetailsSettings
from unet.paths import Paths, fold_number

log = logging.getLogger("unet")


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.data.store import Prepared
    from unet.evaluation.details import DetailTables, write_details

    settings = settings_of(args, DetailsSettings)
    where = (args.dataset, args.model)
    inputs = [paths.segmentation_done(*where, fold) for fold in args.folds]
    made_by = check_inputs(args, settings, [*inputs, paths.prepared_done(*where)])
    prepared = Prepared(paths.prepared(*where))
    tables = DetailTables(*paths.details(*where))
    written = write_details(
        tables,
        {fold: paths.segmentation(*where, fold) for fold in args.folds},
        prepared.path,
        {image: prepared.attrs(image).get("group") or "" for image in prepared.ids()},
        settings,
        args.threads,
    )
    for table in tables:
        provenance.write_sidecar(table, made_by)
    log.info("rows: %s", ", ".join(f"{name} {number}" for name, number in written.items()))


def main(argv: Sequence[str] | None = None) -> int:
    p = parser("details", __doc__ or "", model=True)
    p.add_argument("--folds", required=True, nargs="+", type=fold_number, help="names of the folds")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
