"""Scores the test images of all folds of a model against their labels. Writes metrics.csv."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

# The package need not be installed: this file's parent folder is the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.ONE_HEAP)

from unet import provenance
from unet.cli.stage import parser, run, settings_of
from unet.config.sections import CHOOSING
from unet.config.stage_settings import EvaluateSettings
from unet.paths import Paths, fold_number, origin_of

if TYPE_CHECKING:
    from unet.evaluation.metrics.rows import MetricRow

log = logging.getLogger("unet")


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.stage_inputs import check_inputs
    from unet.data.store import Prepared
    from unet.evaluation.evaluate import evaluate_model, write_metrics

    settings = settings_of(args, EvaluateSettings)
    inputs = [paths.segmentation_done(args.dataset, args.model, fold) for fold in args.folds]
    inputs += [paths.prepared_done(args.dataset, args.model)]
    inputs += (chosen_there := _scores(args.model, settings.evaluate.metrics, paths))
    made_by = check_inputs(args, settings, inputs)
    prepared = Prepared(paths.prepared(args.dataset, args.model))
    rows = evaluate_model(
        args.dataset,
        args.model,
        {fold: paths.segmentation(args.dataset, args.model, fold) for fold in args.folds},
        prepared.path,
        {image: prepared.attrs(image).get("group") or "" for image in prepared.ids()},
        settings,
        args.threads,
        thresholds=_thresholds(chosen_there),
    )
    table = paths.metrics(args.dataset, args.model)
    write_metrics(table, rows)
    provenance.write_sidecar(table, made_by)
    _log_means(rows, settings.task)


def _scores(model: str, families: Sequence[str], paths: Paths) -> list[Path]:
    """For a model of another dataset: the table with the thresholds that were chosen there."""
    origin = origin_of(model)
    if origin is None or not CHOOSING.intersection(families):
        return []
    return [paths.metrics(origin.dataset, origin.model)]


def _thresholds(tables: Sequence[Path]) -> dict[tuple[str, str], float] | None:
    from unet.evaluation.evaluate import chosen_thresholds
    from unet.evaluation.metrics.rows import read_metrics

    return chosen_thresholds(read_metrics(tables[0])) if tables else None


def _log_means(rows: list[MetricRow], task: str) -> None:
    from unet.report.score_tables import HEADLINE

    for score in HEADLINE[task]:
        found = [r for r in rows if r.metric == score.metric and score.class_ in ("*", r.class_)]
        values = [row.value for row in found if row.value == row.value]
        if values:
            log.info("%-12s %.4f  (mean of %d images)", score.label, fmean(values), len(values))


def main(argv: Sequence[str] | None = None) -> int:
    p = parser("evaluate", __doc__ or "", model=True)
    p.add_argument("--folds", required=True, nargs="+", type=fold_number, help="names of the folds")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
