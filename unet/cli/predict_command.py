"""``unet predict``: applies trained networks to images, without a config or the workflow.

It parses, locks and reports; `unet.prediction.apply` runs the stages.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from unet.cli.predict_request import add_request, found_images, requested
from unet.cli.predict_review import review
from unet.cli.stage import run
from unet.errors import how_many
from unet.files import read_json, remove, write_json
from unet.paths import Paths
from unet.prediction.apply.applied_images import (
    Applied,
    PredictTask,
    apply,
    mark_done,
    source_of,
    task_of,
)
from unet.prediction.apply.chosen_settings import model_files, untrained_folds
from unet.prediction.apply.result_folder import Output

log = logging.getLogger("unet")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet predict``."""
    p.description = (
        "Applies a trained model, or several together, to images: with the model's own "
        "normalisation, at its pixel size, in tiles without seams. Writes masks/*.tif, "
        "segmentation.zarr (OME-Zarr: probabilities and labels), objects.csv, manifest.csv (the id "
        "of each image, and which images were left out), and index.html and overview.png to look "
        "at the result. Warns about images that are unlike those of the training, and about "
        "objects that look wrong. If it is stopped, run the same command again to continue."
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
    models = [args.model, *args.with_model]
    members = [Member.load(path) for path in model_files(models)]
    images = found_images(args.images, out.folder)
    with out.locked():
        files = [(name, item.path) for name, item in images]
        columns = {name: item.columns for name, item in images}
        source = source_of(files, out, stack=args.stack, columns=columns)
        task = task_of(members, source, asked)
        if out.is_done(task.key):
            log.info("%s: all results exist; nothing to do", out.folder)
            _missing_page(task, out, args.page, untrained_folds(models))
            if not read_json(out.done).get("kept"):
                remove(out.work)
            return
        out.reopen()
        applied = apply(task, source, out, asked)
        found = review(task, out, applied, args.page, untrained_folds(models))
        mark_done(task, applied, out, asked, **found)
        if not args.keep:
            remove(out.work)
    written = [*out.results, *(path for path in out.outlines if path.exists())]
    left_out = applied.left_out
    missing = f", {left_out} left out (manifest.csv says why)" if left_out else ""
    log.info(
        "%s segmented%s: %s",
        how_many(len(applied.images), "image"),
        missing,
        ", ".join(map(str, written)),
    )
    if args.page:
        log.info("look at %s", out.pages[0])


def _missing_page(task: PredictTask, out: Output, page: bool, lines: Sequence[str]) -> None:
    """Writes the page of finished results that have none, if the images are still prepared.

    Args:
        lines: warnings about the models.
    """
    from unet.data.records import read_manifest

    if not page or out.pages[0].is_file():
        return
    done = read_json(out.done)
    if not (out.store / "zarr.json").is_file():
        log.info(
            "there is no %s, since it is written while images are predicted; to get it, give "
            "another folder with -o",
            out.pages[0].name,
        )
        return
    records = read_manifest(out.manifest)
    used = tuple(record.id for record in records if record.status == "ok")
    applied = Applied(records, used, float(done["threshold"]), out.store)
    write_json(out.done, {**done, **review(task, out, applied, True, lines)})
