"""Predicts the held-out images of one fold, tile by tile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet import slices
from unet.command import parser, run, settings_of
from unet.paths import Paths


def work(args: argparse.Namespace, paths: Paths) -> None:
    from unet.data.records import ids_of, read_splits
    from unet.files import file_sha256, read_json, write_sentinel
    from unet.models.modelfile import load_model
    from unet.prediction.predict import predict_fold

    settings = settings_of(args, lambda c: slices.predict(c, args.dataset, args.model))
    where = (args.dataset, args.model, args.fold)
    rows = read_splits(paths.splits(args.dataset))
    parts = dict.fromkeys(ids_of(rows, args.fold, "val"), "val")
    parts |= dict.fromkeys(ids_of(rows, args.fold, "test"), "test")
    model = load_model(paths.model(*where))
    images = predict_fold(
        [model],
        file_sha256(paths.model(*where)),
        paths.prepared(args.dataset),
        read_json(paths.prepared_done(args.dataset)),
        parts,
        settings,
        paths.tiles(*where),
        args.batch,
        args.memory_gb * 1e9,
        args.threads,
    )
    write_sentinel(paths.tiles_done(*where), settings["version"], images, head=list(model.head))


def _batch(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser(
        "predict",
        "Applies a trained model to the test and validation images of a fold, in tiles whose "
        "cores put together equal the whole image's prediction. Writes tiles.zarr.",
        model=True,
        fold=True,
    )
    p.add_argument("--batch", type=_batch, default="auto", help="tiles at once, or auto")
    p.add_argument("--memory-gb", type=float, default=4.0, help="memory to use, in GB")
    return run(p.parse_args(argv), work)


if __name__ == "__main__":
    sys.exit(main())
