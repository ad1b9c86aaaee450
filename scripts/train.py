"""Trains one model on one fold of one dataset."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import allocator

if __name__ == "__main__":
    allocator.restart(allocator.KEPT)

from unet.cli.stage import Interrupted, parser, run, settings_of
from unet.config.stage_settings import TrainSettings
from unet.config.start_keys import is_start_file
from unet.paths import ENSEMBLE, Paths, fold_name

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from unet.config.sections import TrainSection
    from unet.training.training_job import StartFile


def run_stage(args: argparse.Namespace, paths: Paths) -> None:
    from unet import provenance
    from unet.cli.stage_inputs import check_inputs
    from unet.data.records import ids_of, read_splits
    from unet.data.subsets import subset_of
    from unet.errors import UserError
    from unet.files import read_json
    from unet.models.gpu_meter import GpuMeter
    from unet.report.figures import save_curves
    from unet.training.balance import parted
    from unet.training.progress import Stopped
    from unet.training.ranks import joined
    from unet.training.train import train_fold
    from unet.training.training_job import TrainingData, TrainingOutputs, TrainingResources

    settings = settings_of(args, TrainSettings)
    start = start_file(args, settings, paths)
    if start is not None and is_start_file(settings.train.start):
        settings = settings.model_copy(update={"fingerprint": start.content})
    made_by = check_inputs(args, settings, _inputs(args, paths, settings))
    rows = read_splits(paths.splits(args.dataset))
    if args.fold not in (folds := sorted({row.fold for row in rows})):
        there = ", ".join(map(str, folds))
        raise UserError(f"--fold: no fold {args.fold} in {args.dataset}; there are: {there}")
    prepared = read_json(paths.prepared_done(args.dataset))
    images = prepared["images"]
    groups = {name: entry.get("group", "") for name, entry in images.items()}
    # Each joined dataset gives the same share.
    ids = {
        part: parted(ids_of(rows, args.fold, part), str, images, settings.balance).values()
        for part in ("train", "val")
    }
    share = (settings.train.subset, settings.seed, args.fold)
    data = TrainingData(
        paths.prepared(args.dataset),
        prepared,
        [image for part in ids["train"] for image in subset_of(part, groups, *share)],
        [image for part in ids["val"] for image in part],
        args.encoder_weights,
        start,
    )
    where = (args.dataset, args.model, args.fold)
    outputs = TrainingOutputs(paths.checkpoints(*where), paths.model(*where), paths.history(*where))
    given = (args.checkpoint_seconds, args.cache_gb, args.threads, args.compile)
    meter = GpuMeter()
    try:
        with joined() as ranks:
            resources = TrainingResources(*given, ranks, meter)
            noted = train_fold(data, settings, args.fold, outputs, resources)
    except Stopped as error:
        raise Interrupted(str(error)) from None
    if ranks.first:
        provenance.write_sidecar(paths.history(*where), made_by)
        wanted = start is not None and settings.train.epochs > 0
        warn_of_training(outputs.start, paths, args, wanted, settings.train, noted)
        save_curves(paths.history(*where), paths.curves(*where))
        meter.write(paths.gpu_use("train", args.dataset, args.model, fold_name(args.fold)))


def seen_by_start(paths: Paths, args: argparse.Namespace) -> list[str]:
    """A warning if the start, a model of the same run, was trained on images that are tested."""
    from unet.data.records import ids_of, read_manifest, read_splits
    from unet.training.start.shared_images import shared_images, shared_line

    try:
        dataset, _, fold, _ = args.start.relative_to(paths.output).parts
    except ValueError:  # a file of another run
        return []
    tables = [(paths.manifest(name), paths.splits(name)) for name in (args.dataset, dataset)]
    if not all(path.is_file() for pair in tables for path in pair):
        return []
    own, other = ((read_manifest(one), read_splits(two)) for one, two in tables)
    tested = ids_of(own[1], args.fold, "test")
    found = shared_images(own[0], tested, *other, int(fold.removeprefix("fold-")))
    for line in (lines := [shared_line(found)] if found else []):
        log.warning("warning: %s", line)
    return lines


def start_processes(args: argparse.Namespace, paths: Paths) -> None:
    """Runs this script in several processes. Checks the inputs first, so that a mistake shows only
    once."""
    from unet.cli.stage_inputs import check_inputs
    from unet.training.launch import launch

    settings = settings_of(args, TrainSettings)
    start_file(args, settings, paths)
    check_inputs(args, settings, _inputs(args, paths, settings))
    launch(Path(__file__).resolve(), args.words, settings.device, args.gpus)


def _inputs(args: argparse.Namespace, paths: Paths, settings: TrainSettings) -> list[Path]:
    found = [paths.prepared_done(args.dataset), paths.splits(args.dataset)]
    # The workflow makes a start of the same run; the content of another file is in the settings.
    own = args.start is not None and not is_start_file(settings.train.start)
    return [*found, args.start] if own else found


def start_file(args: argparse.Namespace, settings: TrainSettings, paths: Paths) -> StartFile | None:
    """The file to start from: as the workflow gives it, or from the config.

    Raises:
        UserError: it is not given or missing, or has changed since the workflow was planned.
    """
    from unet.cli.stage_inputs import start_of_config
    from unet.errors import UserError
    from unet.provenance import content_id
    from unet.training.training_job import StartFile

    if settings.train.start is None:
        return None
    if args.start is None and args.config is not None:
        args.start = start_of_config(args, paths)
    if args.start is None:
        raise UserError("--start: needed with train.from; give the file of the weights")
    if not args.start.is_file():
        raise UserError(f"train.from: {args.start}: no such file")
    content = content_id(args.start)
    if settings.fingerprint not in ("", content):
        raise UserError(
            f"train.from: {args.start} has changed since the run was planned; run again"
        )
    return StartFile(args.start, content)


def warn_of_training(
    about: Path,
    paths: Paths,
    args: argparse.Namespace,
    wanted: bool,
    train: TrainSection,
    noted: Sequence[str] = (),
) -> None:
    """Passes the warnings about a training on to console and report.

    Args:
        about: what a training from trained weights says, if ``wanted``.
        noted: warnings that the training has logged.
    """
    from unet.config.warm_up import WARM_UP_KEY, long_warm_up
    from unet.data.dataset_warnings import write_training_warnings
    from unet.files import read_json

    lines = []
    if wanted and about.is_file():
        lines = [*read_json(about)["warnings"], *seen_by_start(paths, args)]
    text = long_warm_up(train)
    of_settings = [f"{WARM_UP_KEY}: {text}"] if text else []
    for line in of_settings:
        log.warning("warning: %s", line)
    found = [*of_settings, *noted]
    write_training_warnings(paths, args.dataset, args.model, args.fold, lines, found)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "train",
        "Trains a U-Net on the prepared images of a fold. If it is stopped, the next call "
        "continues from the last checkpoint. Writes model.pt, history.csv and curves.png.",
        model=True,
        fold=True,
    )
    p.add_argument(
        "--checkpoint-seconds", type=float, default=30.0, help="seconds between checkpoints"
    )
    p.add_argument(
        "--cache-gb", type=float, default=4.0, help="memory for images and targets, in GB"
    )
    p.add_argument(
        "--encoder-weights", type=Path, help="file with the weights that the encoder starts from"
    )
    p.add_argument(
        "--start", type=Path, help="file with the weights to start from (default: by the config)"
    )
    p.add_argument("--gpus", type=int, default=1, help="processes that train together, one per GPU")
    p.add_argument("--compile", action="store_true", help="compile the network (one process only)")
    args = p.parse_args(argv)
    if args.fold == ENSEMBLE:
        p.error("argument --fold: an ensemble cannot be trained, only its folds; write a number")
    if args.checkpoint_seconds <= 0:
        p.error(f"argument --checkpoint-seconds: got {args.checkpoint_seconds:g}, must be above 0")
    if args.gpus > 1 and "WORLD_SIZE" not in os.environ:
        args.words = list(sys.argv[1:] if argv is None else argv)
        return run(args, start_processes)
    return run(args, run_stage)


if __name__ == "__main__":
    sys.exit(main())
