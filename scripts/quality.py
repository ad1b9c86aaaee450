"""Says how far a model of another dataset can be believed on each image. Writes quality.csv."""

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
from unet.config.quality_settings import QualitySettings
from unet.paths import ENSEMBLE, Paths, origin_of

log = logging.getLogger("unet")


def _inputs(paths: Paths, dataset: str, model: str, settings: QualitySettings) -> list[Path]:
    """The inputs of the stage, as in the workflow's rule."""
    found = [paths.segmentation_done(dataset, model, ENSEMBLE), paths.prepared_done(dataset, model)]
    found += [paths.model(dataset, model, fold) for fold in settings.networks]
    origin = origin_of(model)
    if origin is None:
        return found
    there, name = origin.dataset, origin.model
    found += [paths.segmentation_done(there, name, fold) for fold in settings.held_out]
    return [*found, paths.prepared_done(there), paths.metrics(there, name)]


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.evaluation.quality.quality import judge_images, warn
    from unet.evaluation.quality.quality_table import write_quality

    settings = settings_of(args, QualitySettings)
    where = (args.dataset, args.model)
    made_by = check_inputs(args, settings, _inputs(paths, *where, settings))
    rows, basis = judge_images(paths, *where, settings, args.threads)
    table = paths.quality(*where)
    write_quality(table, rows)
    provenance.write_sidecar(table, made_by, basis=basis.to_json())
    warn(paths.warnings(args.dataset, f"quality-{args.model}"), args.model, rows, basis.poor)
    for note in basis.notes:
        log.info("%s", note)
    log.info("images that need a look: %d of %d", sum(row.flagged for row in rows), len(rows))


def main(argv: Sequence[str] | None = None) -> int:
    p = parser("quality", __doc__ or "", model=True)
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
