"""Looks at what ``unet predict`` made: warns about what seems wrong, and writes the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.config.stage_settings import StitchSettings
from unet.data.dataset_warnings import first_lines, grouped, read_warnings
from unet.data.records import ImageRecord
from unet.errors import one_line
from unet.files import remove

if TYPE_CHECKING:
    from unet.models.model_file import ModelFile
    from unet.prediction.object_counts import Counted
    from unet.report.predicted_page import PredictedImages

log = logging.getLogger("unet")

# Keys of the section stitch that the page shows, next to the threshold.
SHOWN_SETTINGS = ("method", "min_size", "fill_holes", "connectivity")


@dataclass(frozen=True)
class Finished:
    """The results to look at.

    Attributes:
        folder: of the results.
        store: the prepared images.
        warnings: folder with the warnings of the earlier stages.
        records: rows of the manifest.
        models: the networks.
        keys: the hash of each network's file.
        settings: of the stitch stage.
        threshold: the one that was used.
    """

    folder: Path
    store: Path
    warnings: Path
    records: Sequence[ImageRecord]
    models: Mapping[Path, ModelFile]
    keys: Mapping[Path, str]
    settings: StitchSettings
    threshold: float


def review(finished: Finished, page: bool) -> dict[str, Any]:
    """Logs warnings, and writes the page; if it is not wanted, removes an earlier one.

    Returns:
        What ``predict.json`` says: ``warnings``, lines; ``unlike``: image id -> how it differs from
        the training images; ``odd``: image id -> what looks wrong about its result.
    """
    from unet.data.store import OwnGrid
    from unet.report.predicted_page import PAGE, SHEET, write_predicted

    found = examined(finished)
    earlier = read_warnings(finished.warnings)
    own = [line for line in found.warnings if line not in earlier]
    for line in first_lines(own, PAGE if page else "predict.json"):
        log.warning("warning: %s", line)
    if page:
        write_predicted(finished.folder, OwnGrid(finished.store), found)
    else:
        for name in (PAGE, SHEET):
            remove(finished.folder / name)
    return {
        "warnings": list(found.warnings),
        "unlike": {image: list(reasons) for image, reasons in found.unlike.items()},
        "odd": dict(found.odd),
    }


def examined(finished: Finished) -> PredictedImages:
    """Compares the images with those of the training, and the objects with what is usual."""
    from unet.data.store import Prepared
    from unet.prediction.drift import Comparison, unlike_warnings
    from unet.prediction.object_counts import count_objects, object_warnings
    from unet.report.predicted_page import PredictedImages

    settings = finished.settings
    used = {record.id: record for record in finished.records if record.status == "ok"}
    counted = count_objects(finished.folder / "objects.csv", list(used), settings.task)
    comparison = Comparison.of(finished.models)
    unlike = comparison.unlike_images(Prepared(finished.store), list(used))
    odd = _odd(finished, counted, comparison.sizes)
    lines = [
        *read_warnings(finished.warnings),
        *_unknown_sizes(list(used.values()), comparison.pixel_size_um),
        *unlike_warnings(unlike, len(used)),
        *object_warnings(counted, odd, settings.task),
    ]
    section = settings.stitch.model_dump(mode="json")
    return PredictedImages(
        task=settings.task,
        class_names=settings.class_names,
        records=finished.records,
        counted=counted,
        unlike=unlike,
        odd=odd,
        warnings=[one_line(line) for line in lines],
        threshold=finished.threshold,
        models={short_name(path): key for path, key in finished.keys.items()},
        settings={name: section[name] for name in SHOWN_SETTINGS}
        if settings.task == "instances"
        else {},
    )


def _odd(
    finished: Finished, counted: Mapping[str, Counted], sizes: Sequence[float] | None
) -> dict[str, str]:
    from unet.data.store import OwnGrid, Prepared
    from unet.prediction.object_counts import odd_images, speck_limits

    seen, own = Prepared(finished.store), OwnGrid(finished.store)
    pixels, factors, dims = {}, {}, 2
    for image in counted:
        shape = own.image(image).shape[1:]
        pixels[image], dims = prod(shape), len(shape)
        # Own pixels per pixel of the network's grid.
        factors[image] = pixels[image] / prod(seen.image(image).shape[1:])
    limits = speck_limits(factors, sizes, dims)
    return odd_images(counted, pixels, limits, finished.settings.task)


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


def short_name(model: Path) -> str:
    """A model's name in the results: its path relative to the output folder of its run."""
    return "/".join(model.parts[-4:])
