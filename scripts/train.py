"""Trains one model on one fold of one dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import slices
from unet.command import Interrupted, parser, run, settings_of
from unet.paths import Paths


def work(args: argparse.Namespace, paths: Paths) -> None:
    from unet.data.records import ids_of, read_splits
    from unet.files import read_json
    from unet.report.figures import save_curves
    from unet.training.run import train_fold
    from unet.training.trainer import Stopped

    settings = settings_of(args, lambda c: slices.train(c, args.dataset, args.model))
    rows = read_splits(paths.splits(args.dataset))
    where = (args.dataset, args.model, args.fold)
    try:
        train_fold(
            paths.prepared(args.dataset),
            read_json(paths.prepared_done(args.dataset)),
            ids_of(rows, args.fold, "train"),
            ids_of(rows, args.fold, "val"),
            settings,
            args.fold,
            paths.checkpoints(*where),
            paths.model(*where),
            paths.history(*where),
            args.checkpoint_seconds,
            args.cache_gb,
            args.threads,
        )
    except Stopped as error:
        raise Interrupted(str(error)) from None
    save_curves(paths.history(*where), paths.curves(*where))


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "train",
        "Trains a U-Net on the prepared images of a fold; stopped at any moment, the next call "
        "goes on from the last checkpoint. Writes model.pt, history.csv and curves.png.",
        model=True,
        fold=True,
    )
    p.add_argument(
        "--checkpoint-seconds", type=float, default=30.0, help="time between two checkpoints"
    )
    p.add_argument(
        "--cache-gb", type=float, default=4.0, help="memory for images and targets, in GB"
    )
    return run(p.parse_args(argv), work)


if __name__ == "__main__":
    sys.exit(main())
