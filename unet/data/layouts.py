"""Finds the images and labels of a dataset: one function per layout. Light: it decodes nothing.

``LAYOUTS`` maps the config's ``layout`` to a function that lists the pairs of image and label. To
add a layout, write a function and add one line there and one in
`unet.config.choices.LAYOUT_TABLE`.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unet.data.file_names import Found, find, is_image, safe_id
from unet.data.globs import glob_paths
from unet.data.raw_files import RawPair, RawSource, read_sheet, with_labels
from unet.data.unread_files import left_out_lines, second_choices, warn_of_unread_files
from unet.errors import UserError
from unet.files import is_pattern
from unet.io.array_paths import split_inside
from unet.io.channel_files import parts_of
from unet.io.formats import format_of
from unet.io.own_labels import is_own
from unet.io.zarr_metadata import is_zarr

log = logging.getLogger(__name__)


def find_pairs(source: RawSource) -> list[RawPair]:
    """All images of a dataset, sorted by id, each with its label if it has one.

    Raises:
        UserError: no images, or names that do not show which label belongs to which image.
    """
    layout = LAYOUTS.get(source.layout)
    if layout is None:
        raise UserError(f"layout: no {source.layout!r}; there are: {', '.join(LAYOUTS)}")
    if source.sheet is not None and source.layout not in ("folders", "stack"):
        raise UserError(f"images: a sheet needs layout: folders or stack, not {source.layout}")
    pairs = layout(source)
    if not source.labelled:
        pairs = [replace(pair, label=None) for pair in pairs]
    return sorted(pairs, key=lambda p: (p.id, str(p.image)))


def list_files(source: RawSource) -> list[Path]:
    """Every file (or folder, for OME-Zarr and mask folders) that the manifest depends on.

    Decodes nothing, so it is fast enough for each start of the workflow. Raises the errors of
    ``find_pairs``.
    """
    files = set() if source.sheet is None else {source.sheet}
    for pair in find_pairs(source):
        files.update(parts_of(pair.image))
        if pair.label is not None:
            files.update(parts_of(pair.label))
    return sorted(files, key=lambda path: path.parts)


def plain_folders(source: RawSource) -> list[Path] | None:
    """The folders whose entries alone determine the dataset's files; None if that is not enough:
    sheets, globs over several folders, layouts with subfolders."""
    if source.layout not in ("folders", "stack") or source.sheet is not None:
        return None
    labels = source.labels if source.labelled else None
    found = []
    for pattern in (source.images, labels):
        if pattern is None:
            continue
        where = split_inside(source.root / Path(pattern).expanduser())[0]
        folder = where if where.is_dir() else where.parent
        if glob.has_magic(str(folder)) or "**" in pattern or not folder.is_dir():
            return None
        if format_of(folder) or is_zarr(folder):
            return None  # an image, or a plate of images
        found.append(folder)
    return found


# The layouts


def folders(source: RawSource) -> list[RawPair]:
    """Images and labels in two folders (or by two globs), matched by name; or a sheet."""
    if source.sheet is not None:
        return read_sheet(source, source.sheet)
    images = find(source.images, source.root, "images", source.warn)
    images, labels = with_labels(source, images)
    return [_pair(item, labels.get(item.path)) for item in images]


def _pair(item: Found, label: Path | None) -> RawPair:
    return RawPair(safe_id(item.name), item.path, label, group=item.group, columns=item.columns)


def stack(source: RawSource) -> list[RawPair]:
    """Like ``folders``, but every page of a file is an image. A single image file and a single
    label file match with any names."""
    return [replace(pair, stack=True) for pair in folders(source)]


def dsb2018(source: RawSource) -> list[RawPair]:
    """A folder per image: <id>/images/<one file> and <id>/masks/<one file per object>."""
    pairs, left = [], dict[Path, Path | None]()
    for folder in _folders(source):
        images = sorted(p for p in (folder / "images").glob("*") if is_image(p))
        left |= second_choices(images)
        images = [path for path in images if path not in left]
        if not images:
            continue
        if len(images) > 1:
            raise UserError(f"{folder / 'images'}: {len(images)} images; layout dsb2018 needs one")
        masks = folder / "masks"
        labelled = masks.is_dir() and any(is_image(p) for p in masks.iterdir())
        pairs.append(RawPair(safe_id(folder.name), images[0], masks if labelled else None))
    _warn_of_choices(left, source)
    return _not_empty(pairs, source, "folders <id>/images with one image each")


_CTC_FRAME = re.compile(r"t(\d{3,})\.tiff?", re.IGNORECASE)


def ctc(source: RawSource) -> list[RawPair]:
    """Cell Tracking Challenge: <seq>/t000.tif with <seq>_GT/SEG/man_seg000.tif (or <seq>_ST).

    ``labels`` chooses GT or ST; without it GT is used if the sequence has it. If labels are
    required, the frames without a label are left out.
    """
    if source.labels not in (None, "GT", "ST"):
        raise UserError(f"labels: {source.labels!r}; layout ctc takes GT, ST or nothing")
    alone = source.root / Path(source.images).expanduser()
    one = alone.is_dir() and any(_CTC_FRAME.fullmatch(p.name) for p in alone.iterdir())
    pairs, skipped = [], 0
    for folder in [alone] if one else _folders(source):
        segs = _ctc_labels(folder, source.labels)
        frames = {m[1]: p for p in folder.iterdir() if (m := _CTC_FRAME.fullmatch(p.name))}
        for number, path in sorted(frames.items()):
            label = segs / f"man_seg{number}{path.suffix}" if segs else None
            label = label if label is not None and label.exists() else None
            if label is None and segs and source.labelled and source.required:
                skipped += 1
                continue
            name = f"{folder.name}-t{number}"
            pairs.append(RawPair(safe_id(name), path, label, group=folder.name))
    if skipped:
        log.info("%d frames without a label are left out", skipped)
    return _not_empty(pairs, source, "sequences <nn>/t000.tif")


def _ctc_labels(sequence: Path, wanted: str | None) -> Path | None:
    """The folder with a sequence's labels: GT before ST, unless ``wanted`` names one of them."""
    kinds = (wanted,) if wanted else ("GT", "ST")
    found = (sequence.with_name(f"{sequence.name}_{kind}") / "SEG" for kind in kinds)
    return next((folder for folder in found if folder.is_dir()), None)


_NNUNET = re.compile(r"(.+)_(\d{4})(\.[A-Za-z0-9]+(?:\.gz)?)")


def nnunet(source: RawSource) -> list[RawPair]:
    """nnU-Net: imagesTr/<case>_0000.tif (a file per channel) and labelsTr/<case>.tif."""
    folder = _existing(source, source.images, "images")
    if (folder / "imagesTr").is_dir():
        folder = folder / "imagesTr"
    labels = folder.with_name(folder.name.replace("images", "labels", 1))
    if source.labels is not None:
        labels = _existing(source, source.labels, "labels")
    cases: dict[str, list[tuple[str, str]]] = {}
    paths = sorted(folder.iterdir())
    warn_of_unread_files(paths, "images", source.warn)
    left = second_choices(filter(is_image, paths))
    _warn_of_choices(left, source)
    for path in paths:
        if is_image(path) and path not in left and (parts := _NNUNET.fullmatch(path.name)):
            cases.setdefault(parts[1], []).append((parts[2], parts[3]))
    pairs = []
    for case, files in sorted(cases.items()):
        suffix = files[0][1]
        if files != [(f"{number:04d}", suffix) for number in range(len(files))]:
            names = ", ".join(f"{case}_{number}{ending}" for number, ending in files)
            raise UserError(f"{folder}: channels must be _0000, _0001, ... of one format: {names}")
        image = folder / f"{case}_{'????' if len(files) > 1 else '0000'}{suffix}"
        label = labels / f"{case}{suffix}"
        pairs.append(RawPair(safe_id(case), image, label if label.exists() else None))
    return _not_empty(pairs, source, "images <case>_0000.tif")


def ome_zarr(source: RawSource) -> list[RawPair]:
    """Each *.zarr is an image, or a plate or collection of images. The label of an image is in
    labels/<name>, where the name is the config's ``labels``, or the only one."""
    pairs = []
    for item in find(source.images, source.root, "images", source.warn):
        if format_of(item.path) in ("", ".zarr"):
            label = _zarr_label(item.path, source.labels) if source.labelled else None
            pairs.append(_pair(item, label))
    return _not_empty(pairs, source, "folders *.zarr")


def plate(source: RawSource) -> list[RawPair]:
    """OME-Zarr plates: each field is an image, and the fields of a well are a group; labels are
    found as in ``ome_zarr``. Or files named by a pattern, with labels as in ``folders``."""
    if is_pattern(source.images):
        return folders(source)
    pairs = [pair for pair in ome_zarr(source) if pair.group]
    return _not_empty(pairs, source, "OME-Zarr plate, such as plate.zarr")


LAYOUTS: dict[str, Callable[[RawSource], list[RawPair]]] = {
    "folders": folders,
    "stack": stack,
    "dsb2018": dsb2018,
    "ctc": ctc,
    "nnunet": nnunet,
    "ome-zarr": ome_zarr,
    "plate": plate,
}


# What the layouts share


def _existing(source: RawSource, pattern: str, key: str) -> Path:
    folder = source.root / Path(pattern).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}: no folder {folder}")
    return folder


def _folders(source: RawSource) -> list[Path]:
    """The folders in a folder, or the folders that match a glob."""
    where = source.root / Path(source.images).expanduser()
    if glob.has_magic(str(where)) and not where.exists():
        found = [p for p in glob_paths(where)[1] if p.is_dir()]
    else:
        folder = _existing(source, source.images, "images")
        found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise UserError(f"images: {where} contains no folders; see layout: {source.layout}")
    return found


def _warn_of_choices(left: dict[Path, Path | None], source: RawSource) -> None:
    for line in left_out_lines(left):
        source.warn(f"images: {line}")


def _not_empty(pairs: list[RawPair], source: RawSource, wanted: str) -> list[RawPair]:
    if not pairs:
        raise UserError(f"images: {source.images} contains no {wanted} (layout: {source.layout})")
    return pairs


def _zarr_label(image: Path, wanted: str | None) -> Path | None:
    """The label group in an OME-Zarr image."""
    folder = image / "labels"
    if not folder.is_dir():
        return None
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if wanted is not None:
        return folder / wanted if wanted in names else None
    # What was predicted is a label only if it is asked for by its name.
    names = [name for name in names if not is_own(folder / name)]
    if len(names) > 1:
        raise UserError(f"{image}: has labels {', '.join(names)}; choose one with the key labels")
    return folder / names[0] if names else None
