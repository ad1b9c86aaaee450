"""``unet annotate``: chooses what to annotate next among predicted images without labels."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from unet.cli.arguments import axes, positive
from unet.cli.stage import run
from unet.errors import UserError, how_many
from unet.paths import Paths

log = logging.getLogger("unet")

METHODS = ("doubt", "random")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet annotate``."""
    p.description = (
        "Chooses what to annotate next among images without labels that a model predicted: crops "
        "about whose objects it doubts and that differ from each other. Writes a folder with the "
        "crops, the model's own masks to correct, a sheet that a config reads, and index.html."
    )
    p.epilog = (
        "examples:\n"
        "  unet annotate results new -o to-annotate          a dataset with predict_with\n"
        "  unet annotate segmented photos -n 10              results of unet predict\n"
        "  unet annotate results new --method random         the baseline: see docs/annotate.md"
    )
    p.add_argument(
        "results", type=Path, metavar="RESULTS", help="results of a run, or of unet predict"
    )
    p.add_argument(
        "dataset", metavar="DATASET",
        help="name of the dataset in the results; for unet predict the folder of the images",
    )  # fmt: skip
    p.add_argument("--model", metavar="M", help="model that predicted them, if there are several")
    p.add_argument("-n", type=positive, default=20, dest="number", help="crops (default 20)")
    p.add_argument(
        "--crops", type=_sides, default=(256,), metavar="PX",
        help="side of a crop in pixels, or one number per axis: 16,128,128; 0 = whole images "
        "(default 256)",
    )  # fmt: skip
    p.add_argument(
        "--method", choices=METHODS, default="doubt",
        help="doubt and diversity, or random among crops with enough foreground (default doubt)",
    )  # fmt: skip
    p.add_argument(
        "-o", "--output", type=Path, default=Path("to-annotate"),
        help="new folder for the results (default to-annotate)",
    )  # fmt: skip
    p.add_argument("--seed", type=_seed, default=0, help="of what is drawn at random (default 0)")
    p.add_argument("--images", type=Path, metavar="FOLDER", help="folder of the images, if moved")
    p.add_argument("--axes", type=axes, help="axes of files that do not declare them, such as CYX")


def _sides(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(parts) > 3:
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number, or one per axis")
    found = tuple(map(int, parts))
    if any(0 < side < 16 for side in found[-2:]):
        raise argparse.ArgumentTypeError(f"got {text}; write 16 or more, or 0 for whole images")
    return found


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number from 0")
    return int(text)


def command(args: argparse.Namespace) -> int:
    """Runs ``unet annotate``; returns the exit code."""
    return run(args, annotate)


def annotate(args: argparse.Namespace, paths: Paths) -> None:
    """Chooses the crops and writes the folder.

    Raises:
        UserError: there are no such results, they have labels, or the output folder has files.
    """
    from unet.prediction.annotation.ranked_crops import rank_crops
    from unet.prediction.annotation.unlabelled_images import find_unlabelled
    from unet.report.annotation_folder import AnnotationFolder, check_empty

    folder = paths.output
    check_empty(folder)
    images = find_unlabelled(args.results, args.dataset, args.model, args.images, args.axes)
    if folder.absolute().is_relative_to(args.results.absolute()):
        raise UserError(
            f"{folder}: lies in the results; choose a folder outside of {args.results} with -o"
        )
    ranking = rank_crops(images, args.number, args.crops, args.method, args.seed)
    for line in ranking.warnings:
        log.warning("warning: %s", line)
    about = {"method": args.method, "seed": args.seed}
    written = AnnotationFolder(images, ranking, not any(args.crops), about)
    snippet = written.write(folder)
    log.info("%s of %d possible, from %s", how_many(len(ranking.crops), "crop"), ranking.possible,
             how_many(len({one.crop.image for one in ranking.crops}), "image"))  # fmt: skip
    log.info("%s", written.doubt_words)
    log.info("%s", written.cautions_words)
    log.info("correct %s, then name the sheet in a config:", folder / "labels")
    for line in snippet.splitlines():
        log.info("  %s", line)
    log.info("look at %s", folder / "index.html")
