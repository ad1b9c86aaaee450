"""Says what was understood of a dataset before anything is trained; or shows that of all datasets
(--all), and fails if a finding must stop a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# So that `python scripts/check.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.stage import parser, run, settings_of
from unet.paths import Paths


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    if args.all:
        _show(args, paths)
        return
    from unet.cli.check_work import judged, known_splits, surveyed, this_machine, write_checked
    from unet.cli.stage_inputs import check_inputs
    from unet.config.check_settings import CheckSettings
    from unet.data.records import read_manifest
    from unet.planning.jobs import Run
    from unet.report.checked import read_checked

    settings, dataset = settings_of(args, CheckSettings), args.dataset
    given = (each.partition("=") for each in args.masks)
    # Absolute, since the config's are relative to its data_root.
    masks = {tool: str(Path(where).absolute()) for tool, _, where in given}
    at = settings.with_masks(dataset, masks)
    config = at.config_at(dataset, str(args.output), str(args.root), args.images, args.labels)
    workflow = Run(config)
    origins = workflow.origin_checks(dataset)
    manifests = workflow.start_manifests(dataset)
    inputs = [paths.manifest(dataset), *origins, *manifests.values()]
    made_by = check_inputs(args, settings, inputs)
    records = read_manifest(paths.manifest(dataset))
    splits = known_splits(paths, config, dataset)
    others = [read_checked(path).survey for path in origins]
    surveys = {survey.dataset: survey for survey in others}
    surveys[dataset] = surveyed(config, dataset, args.threads, records, splits)
    machine = this_machine(config.device, args.threads)
    starts = {name: Path(where) for name, _, where in (e.partition("=") for e in args.start)}
    started = {name: read_manifest(path) for name, path in manifests.items()}
    found = judged(config, dataset, surveys, machine, starts, started)
    write_checked(paths, config, found, made_by)


def _show(args: argparse.Namespace, paths: Paths) -> None:
    from unet.cli.check_command import show_checks, stopped
    from unet.config.check_settings import CheckAllSettings
    from unet.errors import UserError

    datasets = settings_of(args, CheckAllSettings).datasets
    if show_checks(paths, datasets):
        raise UserError("\n".join(stopped(paths, datasets)))


def main(argv: list[str] | None = None) -> int:
    p = parser("check", __doc__ or "", dataset=False)
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="name of the dataset in the config")
    which.add_argument("--all", action="store_true", help="show what the checks of all found")
    p.add_argument("--root", type=Path, default=Path(), help="folder that paths are relative to")
    p.add_argument("--images", default="images", help="folder, glob or sheet (.csv) of the images")
    p.add_argument("--labels", help="folder or glob of the labels (or what the layout needs)")
    p.add_argument(
        "--masks", action="append", default=[], metavar="TOOL=WHERE",
        help="masks of another tool: its name in the config, and their folder, glob or file",
    )  # fmt: skip
    p.add_argument(
        "--start", action="append", default=[], metavar="MODEL=FILE",
        help="the file that the training of a model starts from",
    )  # fmt: skip
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
