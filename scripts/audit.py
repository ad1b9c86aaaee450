"""Looks for wrong labels: where a model that did not see them disagrees. Writes audit.csv."""

from __future__ import annotations

import argparse
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
from unet.config.audit_settings import AuditSettings
from unet.paths import Paths, fold_number


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.evaluation.audit.audit_model import audit_model
    from unet.evaluation.audit.doubt_outlines import write_outlines
    from unet.evaluation.audit.doubts import ABOUT, write_doubts

    settings = settings_of(args, AuditSettings)
    where = (args.dataset, args.model)
    inputs = [paths.segmentation_done(*where, fold) for fold in args.folds]
    made_by = check_inputs(args, settings, [*inputs, paths.prepared_done(args.dataset)])
    folds = {fold: paths.segmentation(*where, fold) for fold in args.folds}
    prepared = paths.prepared(args.dataset)
    audit = audit_model(folds, prepared, settings, args.threads)
    write_outlines(
        paths.audit_outlines(*where), audit.doubts, folds, prepared, settings.task, args.threads
    )
    write_doubts(paths.audit(*where), audit.doubts)
    provenance.write_sidecar(paths.audit(*where), made_by, description=ABOUT, audit=audit.summary())


def main(argv: Sequence[str] | None = None) -> int:
    p = parser("audit", __doc__ or "", model=True)
    p.add_argument("--folds", required=True, nargs="+", type=fold_number, help="names of the folds")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
