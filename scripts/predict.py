"""Predicts the held-out images of one fold, or of the ensemble of folds, tile by tile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import slices
from unet.command import parser, run, settings_of
from unet.errors import UserError
from unet.paths import ENSEMBLE, Paths


def work(args: argparse.Namespace, paths: Paths) -> None:
    from unet.data.records import read_splits
    from unet.files import read_json, write_sentinel
    from unet.prediction.ensemble import Member, held_out
    from unet.prediction.predict import predict_fold

    settings = settings_of(args, lambda c: slices.predict(c, args.dataset, args.model))
    where = (args.dataset, args.model, args.fold)
    folds = _members(settings, args.fold, args.dataset)
    parts, alone = held_out(read_splits(paths.splits(args.dataset)), folds)
    members = [Member.load(paths.model(args.dataset, args.model, fold)) for fold in folds]
    images = predict_fold(
        members,
        paths.prepared(args.dataset),
        read_json(paths.prepared_done(args.dataset)),
        parts,
        settings,
        paths.tiles(*where),
        args.batch,
        args.memory_gb * 1e9,
        args.threads,
        alone,
    )
    head = list(members[0].model.head)
    write_sentinel(paths.tiles_done(*where), settings["version"], images, head=head)


def _members(settings: dict[str, Any], fold: int, dataset: str) -> list[int]:
    """The folds whose networks predict."""
    if fold != ENSEMBLE:
        return [fold]
    if "members" not in settings:
        raise UserError(
            f"--fold ensemble: datasets.{dataset}.split makes none; give both folds and test there"
        )
    return list(settings["members"])


def _batch(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "predict",
        "Applies a trained model to the test and validation images of a fold, in tiles whose "
        "cores put together equal the whole image's prediction; or the models of all folds "
        "together to the test images that they share. Writes tiles.zarr.",
        model=True,
        fold=True,
    )
    p.add_argument("--batch", type=_batch, default="auto", help="tiles at once, or auto")
    p.add_argument("--memory-gb", type=float, default=4.0, help="memory to use, in GB")
    return run(p.parse_args(argv), work)


if __name__ == "__main__":
    sys.exit(main())
