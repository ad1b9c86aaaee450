"""Turns a U-Net that was trained in Keras into a model.pt of this pipeline."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# So that `python scripts/import_keras.py` finds the package, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.cli.arguments import Parser
from unet.cli.stage import run
from unet.config.choices import NORMALIZATION_TABLE
from unet.errors import how_many
from unet.paths import Paths

log = logging.getLogger("unet")


def run_stage(args: argparse.Namespace, _: Paths) -> None:
    from unet.config.sections import NormalizeSection
    from unet.models.keras_import import load_keras_unet
    from unet.models.model_file import save_model

    normalize = NormalizeSection(method=args.normalize)
    model = load_keras_unet(
        args.model,
        [name.strip() for name in args.classes.split(",")],
        normalize=normalize.model_dump(mode="json"),
        divide_by=args.divide_by,
        order=args.order,
        skip_first=True if args.skip_first else None,
        norm_eps=args.norm_eps,
    )
    save_model(args.output, model)
    arch = model.architecture
    log.info(
        "%s: U-Net of width %d and depth %d, %s, classes %s; wrote %s",
        args.model, arch.width, arch.depth, how_many(model.in_channels, "channel"),
        ", ".join(model.head), args.output,
    )  # fmt: skip
    if args.normalize == "none":
        after = "" if args.divide_by == 1 else f", and divides them by {args.divide_by:g}"
        log.info(
            "normalisation: none (the network gets pixels as stored%s); if the Keras code scaled "
            "them differently, use --normalize or --divide-by", after,
        )  # fmt: skip
    else:
        log.info("normalisation: %s", args.normalize)


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(
        prog="python scripts/import_keras.py",
        description="Writes the weights of a padded U-Net from a Keras file into a model.pt. "
        "Keras itself is not needed. docs/models.md says which networks can be imported.",
    )
    p.add_argument("model", type=Path, help="the .keras, .h5 or .weights.h5 file to read.")
    p.add_argument("-o", "--output", type=Path, required=True, help="the model.pt to write")
    p.add_argument(
        "--classes",
        required=True,
        help="names of the classes, in the order of the channels, such as background,cell; two "
        "names for a single channel with sigmoid",
    )
    p.add_argument(
        "--normalize",
        choices=sorted(NORMALIZATION_TABLE),
        default="none",
        help="how to normalise images for this network, as in prepare.normalize (default none)",
    )
    p.add_argument(
        "--divide-by",
        type=float,
        default=1.0,
        help="number that the Keras code divided pixels by, such as 255 (default 1)",
    )
    p.add_argument(
        "--order",
        choices=("act-norm", "norm-act"),
        help="for files with weights only: ReLU before (act-norm) or after (norm-act) "
        "BatchNormalization (default act-norm)",
    )
    p.add_argument(
        "--skip-first",
        action="store_true",
        help="for files with weights only: concatenations are [skip, upsampled], in this order",
    )
    p.add_argument(
        "--norm-eps",
        type=float,
        help="for files with weights only: epsilon of BatchNormalization (default 0.001)",
    )
    p.add_argument("--log", type=Path, help="also write all messages to this file")
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
