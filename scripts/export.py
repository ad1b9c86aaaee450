"""Writes a trained model as a package of the BioImage Model Zoo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# The package need not be installed: this file's parent folder is the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import provenance
from unet.cli.stage import parser, run, settings_of
from unet.config.export_settings import ExportSettings
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    import torch

    from unet.cli.stage_inputs import check_inputs
    from unet.prediction.apply.chosen_settings import choices_of_run
    from unet.report.exported_model import (
        check_complete,
        example_image,
        export_package,
        trained_model,
    )

    settings = settings_of(args, ExportSettings)
    check_complete(settings.export)
    where = (args.dataset, args.model)
    network, scores = paths.model(*where, settings.fold), paths.metrics(*where)
    inputs = [network, *([scores] if scores.is_file() else [])]
    thresholds = [paths.segmentation_done(*where, k) for k in settings.tested]
    inputs += [*thresholds, paths.splits(args.dataset), paths.prepared_done(args.dataset)]
    made_by = check_inputs(args, settings, inputs)
    torch.set_num_threads(args.threads)
    trained = trained_model(paths, *where, settings.fold, settings.confidence)
    package = paths.package(*where)
    image = example_image(paths, args.dataset, settings.fold, network)
    known = choices_of_run(settings.stitch, settings.tta, thresholds)
    export_package(package, network, settings.export, trained, image, known)
    provenance.write_sidecar(package, made_by)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "export",
        "Writes a trained model as a package that other programs read (BioImage Model Zoo): "
        "weights, description, scores, an image to test it with.",
        model=True,
    )
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
