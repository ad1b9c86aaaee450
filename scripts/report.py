"""Writes report tables and pages: for one dataset, or over all datasets of the run (--all)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# The package need not be installed: this file's parent folder is the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli import stage
from unet.paths import Paths
from unet.planning.report_inputs import explaining_tables, report_inputs

if TYPE_CHECKING:
    from unet.config.stage_settings import ReportSettings


def _inputs(paths: Paths, dataset: str, settings: ReportSettings) -> list[Path]:
    """The inputs of a dataset's report, as in the workflow's rule."""
    where = (paths, dataset, settings)
    # Results of earlier versions lack some tables; their report has fewer sections.
    there = [path for path in explaining_tables(*where) if path.is_file()]
    return [paths.manifest(dataset), *report_inputs(*where), *there]


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.config.stage_settings import ReportAllSettings, ReportSettings
    from unet.report.dataset_page import report_dataset
    from unet.report.overall_page import report_all
    from unet.report.run_summary import print_summary
    from unet.report.score_tables import read_report

    if args.dataset is not None:
        settings = stage.settings_of(args, ReportSettings)
        made_by = check_inputs(args, settings, _inputs(paths, args.dataset, settings))
        report_dataset(paths, args.dataset, settings)
        provenance.write_sidecar(paths.dataset_report_csv(args.dataset), made_by)
        return
    overall = stage.settings_of(args, ReportAllSettings)
    datasets = overall.datasets
    if args.show:
        rows = read_report(paths.report_csv)
    else:
        reports = [paths.dataset_report_csv(name) for name in datasets]
        made_by = check_inputs(args, overall, reports)
        rows = report_all(paths, datasets)
        provenance.write_sidecar(paths.report_csv, made_by)
    tasks = {name: entry.task for name, entry in datasets.items()}
    shown = {name: e.scored for name, e in datasets.items()}
    print_summary(paths, rows, tasks, shown)


def main(argv: list[str] | None = None) -> int:
    parser = stage.parser("report", __doc__, dataset=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="name of the dataset in the config")
    which.add_argument(
        "--all", action="store_true", help="write the report over all datasets, from their reports"
    )
    parser.add_argument(
        "--show", action="store_true", help="with --all: print the main scores, write nothing"
    )
    return stage.run(parser.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
