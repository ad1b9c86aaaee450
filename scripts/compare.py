"""Scores another tool's masks of the test images against their labels. Writes metrics.csv."""

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

from unet.cli.arguments import checked
from unet.cli.stage import parser, run, settings_of
from unet.config.compare_settings import CompareSettings
from unet.paths import Paths, compared_model, fold_number, folder_name


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.data.compared_masks import find_compared, label_of, masks_fingerprint, names_of
    from unet.data.dataset_warnings import write_warnings
    from unet.data.raw_changes import Hashes, stamp, write_inputs
    from unet.data.records import read_manifest, read_splits
    from unet.data.store import Prepared
    from unet.evaluation.compared import Comparison, compare_tool, images_of_folds
    from unet.evaluation.evaluate import write_metrics

    dataset, tool = args.dataset, args.tool
    settings = settings_of(args, CompareSettings)
    inputs = [paths.manifest(dataset), paths.prepared_done(dataset, args.prepared_for)]
    inputs += [] if settings.applied else [paths.splits(dataset)]
    made_by = check_inputs(args, settings, inputs)
    key = f"datasets.{dataset}.compare.{tool}"
    masks = find_compared(args.masks, Path(), key, label_of(settings.task))
    noted, table = paths.compared_files(dataset, tool), paths.metrics(dataset, compared_model(tool))
    value = settings.fingerprint or masks_fingerprint(masks, noted)
    made_by["settings"] = settings.model_copy(update={"fingerprint": value}).to_json()
    # Taken before the files are read, so that later edits are noticed.
    stamps, hashes = {item.path: stamp(item.path) for item in masks.files}, Hashes()
    prepared = Prepared(paths.prepared(dataset, args.prepared_for))
    records = read_manifest(paths.manifest(dataset))
    splits = [] if settings.applied else read_splits(paths.splits(dataset))
    model = compared_model(tool)
    job = Comparison(
        dataset, tool, key, masks, names_of(records, args.root),
        images_of_folds(splits, args.folds, prepared),
        {fold: paths.segmentation(dataset, model, fold) for fold in args.folds},
        prepared, settings, args.threads,
    )  # fmt: skip
    rows, warnings = compare_tool(job)
    write_metrics(table, rows)
    write_inputs(noted, masks.root, value, stamps, hashes.of)
    write_warnings(paths.warnings(dataset, f"compare-{tool}"), warnings)
    provenance.write_sidecar(table, made_by)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser("compare", __doc__ or "")
    p.add_argument(
        "--tool", required=True, type=checked(folder_name),
        help="name of the tool in datasets.<name>.compare",
    )  # fmt: skip
    p.add_argument("--masks", required=True, help="folder, glob or file of its masks")
    p.add_argument("--folds", required=True, nargs="+", type=fold_number, help="names of the folds")
    p.add_argument("--root", type=Path, default=Path(), help="folder of the manifest's paths")
    p.add_argument(
        "--prepared-for",
        default="",
        help="one of the models, if those of other datasets predict",
    )
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
