"""Converts a prepared dataset to nnU-Net v2's raw format, with the same split of the images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.data_settings import PrepareSettings
from unet.data.records import ImageRecord, read_manifest, read_splits
from unet.data.store import Prepared
from unet.errors import UserError
from unet.files import read_json
from unet.io.images import open_image
from unet.paths import Paths
from unet.training.targets import border_classes

IGNORE = 255
# nnU-Net has no instances: as is usual with it, objects are learned as these three classes.
BORDER_HEAD = ("background", "inside", "border")
# Read by its NaturalImage2DIO.
ENDING = ".tif"


def dataset_name(dataset: str, number: int = 1) -> str:
    """Name of the dataset's folder: DatasetNNN_<name>."""
    return f"Dataset{number:03d}_{dataset}"


def split_file(parts: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """Content of splits_final.json: our training and validation images as its fold 0."""
    return [{part: sorted(i for i, p in parts.items() if p == part) for part in ("train", "val")}]


def dataset_json(channels: int, head: Sequence[str], ignore: bool, training: int) -> dict[str, Any]:
    """Content of dataset.json.

    nnU-Net calls class 0 "background", whatever our name for it, and needs the value of ignored
    pixels to follow that of the last class.
    """
    labels = {"background": 0}
    for index, name in enumerate(head[1:], 1):
        labels[name if name not in ("background", "ignore") else f"class-{index}"] = index
    if ignore:
        labels["ignore"] = len(head)
    return {
        # Not "CT" or the like, which would choose another normalisation than its default.
        "channel_names": {str(c): f"channel-{c}" for c in range(channels)},
        "labels": labels,
        "numTraining": training,
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }


def raw_channels(image: NDArray[Any]) -> list[NDArray[Any]]:
    """The pixels of each channel of an image [C, Y, X], in a type that nnU-Net reads."""
    if image.ndim != 3:
        raise ValueError(f"need [C, Y, X], got shape {image.shape}")
    if image.dtype == np.bool_:
        image = image.astype(np.uint8)
    if image.dtype.kind == "f":
        # As our prepare stage does.
        image = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    return list(image)


def raw_labels(
    classes: NDArray[np.uint8],
    instances: NDArray[Any] | None,
    num_classes: int,
    border_width: int,
) -> NDArray[np.uint8]:
    """Labels [Y, X] for nnU-Net; ignored pixels have the value ``num_classes``.

    Args:
        classes: class indices, 255 = ignored.
        instances: ids, for task instances; they become background, inside and inner border of
            ``border_width`` pixels, exactly as for our own border head.
    """
    target = classes
    if instances is not None:
        target = border_classes(instances, border_width, classes == IGNORE)
    return np.where(target == IGNORE, np.uint8(num_classes), target).astype(np.uint8)


def parts_of(paths: Paths, dataset: str, fold: int) -> dict[str, str]:
    """Part of each image in a fold: train, val or test."""
    parts = {row.image: row.part for row in read_splits(paths.splits(dataset)) if row.fold == fold}
    if not parts:
        raise UserError(f"{paths.splits(dataset)}: has no fold {fold}")
    return dict(parts)


def write_raw(
    paths: Paths,
    dataset: str,
    parts: Mapping[str, str],
    settings: PrepareSettings,
    border_width: int,
    folder: Path,
) -> tuple[str, ...]:
    """Writes nnUNet_raw/DatasetNNN_<dataset>; returns the names of the classes to learn.

    The pixels are the raw files' own (of the channels that the config chooses), since nnU-Net
    does its own normalisation.

    Args:
        folder: the dataset's folder below nnUNet_raw.
    """
    prepared, task = Prepared(paths.prepared(dataset)), settings.task
    records = {r.id: r for r in read_manifest(paths.manifest(dataset))}
    root = Path(read_json(paths.inputs(dataset))["root"])
    names = [name for name, _ in settings.classes or ()]
    head = BORDER_HEAD if task == "instances" else tuple(names)
    training = [name for name, part in parts.items() if part != "test"]
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    ignored, channels = False, 0
    for name, part in parts.items():
        image = _pixels(root, records[name], settings)
        channels = len(image)
        sub = "imagesTs" if part == "test" else "imagesTr"
        for c, pixels in enumerate(raw_channels(image)):
            _write(folder / sub / f"{name}_{c:04d}{ENDING}", pixels)
        if part == "test":
            continue
        classes = prepared.classes(name)
        if classes is None:
            raise UserError(f"{prepared.path / name}: has no labels, but is a {part} image")
        ids = prepared.instances(name) if task == "instances" else None
        whole = None if ids is None else np.asarray(ids[...])
        labels = raw_labels(np.asarray(classes[...]), whole, len(head), border_width)
        ignored = ignored or bool((labels == len(head)).any())
        _write(folder / "labelsTr" / f"{name}{ENDING}", labels)
    about = dataset_json(channels, head, ignored, len(training))
    (folder / "dataset.json").write_text(json.dumps(about, indent=1))
    return head


def _pixels(root: Path, record: ImageRecord, settings: PrepareSettings) -> NDArray[Any]:
    if len(record.shape) != 3:
        raise UserError(f"{record.image}: is a volume; this benchmark is for 2D images")
    opened = open_image(
        root / record.image,
        axes=settings.axes,
        channels=settings.channels,
        page=record.page,
        inverted=record.inverted,
    )
    return np.asarray(opened.array[...])


def _write(path: Path, pixels: NDArray[Any]) -> None:
    import tifffile

    tifffile.imwrite(path, np.ascontiguousarray(pixels))
