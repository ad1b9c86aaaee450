"""``unet predict``: applies trained networks to images, without a config or the workflow.

It parses, locks and reports; `unet.prediction.apply` runs the stages.
"""

from __future__ import annotations

import argparse
import logging

from unet.cli.predict_request import add_request, image_files, requested
from unet.cli.stage import run
from unet.files import read_json, remove
from unet.paths import Paths
from unet.prediction.apply.applied_images import Output, apply, source_of, task_of
from unet.prediction.apply.chosen_settings import model_files

log = logging.getLogger("unet")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet predict``."""
    p.description = (
        "Applies a trained model, or several together, to images: with the model's own "
        "normalisation, at its pixel size, in tiles without seams. Writes masks/*.tif, "
        "segmentation.zarr (OME-Zarr: probabilities and labels), objects.csv and manifest.csv "
        "(the id of each image, and which images were left out). If it is stopped, run the same "
        "command again to continue."
    )
    add_request(p)


def command(args: argparse.Namespace) -> int:
    """Runs ``unet predict``; returns the exit code."""
    return run(args, predict_images)


def predict_images(args: argparse.Namespace, paths: Paths) -> None:
    """Runs all stages with the settings of the command line.

    Raises:
        UserError: a model or an image is missing or cannot be used, or they do not fit together.
    """
    from unet.prediction.tiles.ensemble import Member

    out, asked = Output(paths.output), requested(args)
    members = [Member.load(path) for path in model_files([args.model, *args.with_model])]
    images = image_files(args.images, out.folder)
    with out.locked():
        source = source_of(images, out, stack=args.stack)
        task = task_of(members, source, asked)
        if out.is_done(task.key):
            log.info("%s: all results exist; nothing to do", out.folder)
            if not read_json(out.done).get("kept"):
                remove(out.work)
            return
        remove(out.done)
        found, left_out = apply(task, source, out, asked)
        if not args.keep:
            remove(out.work)
    written = [*out.results, *(path for path in out.outlines if path.exists())]
    missing = f", {left_out} left out (manifest.csv says why)" if left_out else ""
    log.info("%d images segmented%s: %s", found, missing, ", ".join(map(str, written)))
