"""Looks at what ``unet predict`` made: warns about what seems wrong, and writes the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.data.dataset_warnings import first_lines, grouped, read_warnings
from unet.data.records import ImageRecord
from unet.errors import one_line
from unet.files import remove
from unet.prediction.apply.applied_images import Applied, PredictTask, short_names
from unet.prediction.apply.result_folder import Output

if TYPE_CHECKING:
    from unet.prediction.object_counts import Counted
    from unet.report.explained_plot import ExplainedPlot
    from unet.report.predicted_page import PredictedImages

log = logging.getLogger("unet")

# Keys of the section stitch that the page shows, next to the threshold.
SHOWN_SETTINGS = ("method", "min_size", "fill_holes", "connectivity")


def review(
    task: PredictTask, out: Output, applied: Applied, page: bool, lines: Sequence[str] = ()
) -> dict[str, Any]:
    """Logs warnings, and writes the page; if it is not wanted, removes an earlier one.

    Args:
        lines: warnings about the models.

    Returns:
        What ``predict.json`` says: ``warnings``, lines; ``unlike``: image id -> how it differs from
        the training images; ``odd``: image id -> what looks wrong about its result.
    """
    from unet.data.store import OwnGrid
    from unet.report.predicted_page import write_predicted

    found = examined(task, out, applied, lines)
    found = replace(found, maps=_plate(task, out, applied, found))
    # The stages have logged their warnings themselves.
    for line in first_lines(found.new_warnings, out.pages[0].name if page else out.done.name):
        log.warning("warning: %s", line)
    if page:
        write_predicted(out, OwnGrid(applied.store), found)
    else:
        for path in out.pages:
            remove(path)
    return {
        "warnings": found.all_warnings,
        "unlike": {image: list(reasons) for image, reasons in found.unlike.items()},
        "odd": dict(found.odd),
    }


def examined(
    task: PredictTask, out: Output, applied: Applied, lines: Sequence[str] = ()
) -> PredictedImages:
    """Compares the images with those of the training, and the objects with what is usual."""
    from unet.data.store import Prepared
    from unet.prediction.drift import Comparison, unlike_warnings
    from unet.prediction.object_counts import count_objects, object_warnings
    from unet.report.predicted_page import PredictedImages

    settings = task.stitch
    used = {record.id: record for record in applied.records if record.status == "ok"}
    counted = count_objects(out.objects, list(used), settings.task)
    comparison = Comparison.of({member.path: member.model for member in task.members})
    unlike = comparison.unlike_images(Prepared(applied.store), list(used))
    odd = _odd(applied.store, settings.task, counted, comparison.sizes)
    earlier = [
        *read_warnings(out.work),
        *_unknown_sizes(list(used.values()), comparison.pixel_size_um),
    ]
    new = [
        *lines,
        *unlike_warnings(unlike, len(used)),
        *object_warnings(counted, odd, settings.task),
    ]
    section = settings.stitch.model_dump(mode="json")
    names = short_names([member.path for member in task.members])
    return PredictedImages(
        task=settings.task,
        class_names=settings.class_names,
        records=applied.records,
        counted=counted,
        unlike=unlike,
        odd=odd,
        warnings=[one_line(line) for line in earlier],
        new_warnings=[one_line(line) for line in new],
        threshold=applied.threshold,
        models={names[member.path]: member.key for member in task.members},
        settings={name: section[name] for name in SHOWN_SETTINGS}
        if settings.task == "instances"
        else {},
    )


def _plate(
    task: PredictTask, out: Output, applied: Applied, found: PredictedImages
) -> list[ExplainedPlot]:
    """Writes ``wells.csv`` if the images are of a plate; returns its heat maps."""
    from unet.report.plate_figures import result_plots
    from unet.report.well_numbers import wells_of, with_objects, write_wells

    wells = wells_of(applied.records, found.counted)
    if not wells:
        return []
    models = {"": with_objects(wells, {out.objects: list(found.counted)}, task.stitch.task)}
    write_wells(out.wells, models)
    return result_plots(models, found.task, found.class_names)


def _odd(
    store: Path, task: str, counted: Mapping[str, Counted], sizes: Sequence[float] | None
) -> dict[str, str]:
    from unet.data.store import OwnGrid, Prepared
    from unet.prediction.object_counts import odd_images, speck_limits, unusual_sizes

    seen, own = Prepared(store), OwnGrid(store)
    pixels, factors, dims = {}, {}, 2
    for image in counted:
        shape = own.image(image).shape[1:]
        pixels[image], dims = prod(shape), len(shape)
        # Own pixels per pixel of the network's grid.
        factors[image] = pixels[image] / prod(seen.image(image).shape[1:])
    limits = speck_limits(factors, sizes, dims)
    unusual = unusual_sizes(counted, factors, sizes) if task == "instances" else {}
    # Of two reasons, specks and a full image say more.
    return {**unusual, **odd_images(counted, pixels, limits, task)}


def _unknown_sizes(records: Sequence[ImageRecord], model: Sequence[float] | None) -> list[str]:
    """A warning about images without a pixel size, if the model has one."""
    if model is None:
        return []
    wanted = " x ".join(f"{step:.4g}" for step in model)
    return grouped(
        (
            record.id,
            f"pixel size unknown, but the model was trained at {wanted} um: not resampled, so "
            "objects may have another size than in training; give --pixel-size",
        )
        for record in records
        if record.pixel_size_um is None
    )
