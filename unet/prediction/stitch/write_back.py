"""Results as labels of the OME-Zarr images that they were predicted from (stitch.write_back)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unet.config.stage_settings import StitchSettings
from unet.data.records import ImageRecord
from unet.errors import UserError
from unet.export.written_label import write_label
from unet.io import own_labels
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.stitch.stitch_image import mask_values

KEY = "stitch.write_back"


def label_name(write_back: str) -> str:
    """The label's name in ``labels/<name>``."""
    return write_back.removeprefix("labels/")


def write_targets(
    records: Iterable[ImageRecord], root: Path, write_back: str | None, key: str = KEY
) -> dict[str, Path]:
    """Image id -> its group in the user's files; nothing if no label is to be written.

    Args:
        root: the folder that the manifest's paths start from.
        key: that asks for it, for messages.

    Raises:
        UserError: an image cannot have labels inside, or has another label of this name.
    """
    found: dict[str, Path] = {}
    for record in records:
        if write_back is None or record.status != "ok":
            continue
        image, label = root / record.image, root / record.label if record.label else None
        if record.page is not None:
            raise UserError(
                f"{key}: {record.image} holds several images, which cannot have labels of their "
                "own; leave it out"
            )
        own_labels.check_target(image, label_name(write_back), key, label)
        found[record.id] = image
    return found


def write_image_back(
    store: Path,
    image: str,
    target: Path,
    settings: StitchSettings,
    about: Mapping[str, Any] | None,
    threads: int,
) -> None:
    """Writes the finished result of an image into the user's files: ids of objects, or for task
    semantic the values of the classes, as in the TIFF masks.

    Args:
        store: the finished ``segmentation.zarr``.
        target: the group of the user's image.

    Raises:
        UserError: the user's image has changed.
    """
    section, objects = settings.stitch, settings.task == "instances"
    if section.write_back is None:
        return
    levels = Segmentation(store).levels(image, f"labels/{'instances' if objects else 'classes'}")
    write_label(
        target, label_name(section.write_back), levels, None if objects else mask_values(settings),
        by=section.label_pyramid, about=about, threads=threads,
    )  # fmt: skip
