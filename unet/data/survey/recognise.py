"""Finds out how a folder of images and labels is laid out, by looking at its files.

Nothing is decoded here: :mod:`unet.data.survey.file_meaning` opens the files, and
:mod:`unet.data.survey.label_meaning` reads a sample of the labels. A folder is compared with every
form in ``FORMS``, in order; to add a form, write a function and add it there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unet.config.run import RESERVED_NAMES
from unet.data.dataset_warnings import ignore_warning
from unet.data.file_names import Found, common_ending, is_image, paired_by_name
from unet.data.layouts import find_pairs
from unet.data.raw_files import RawPair, RawSource
from unet.data.sheets import read_rows
from unet.data.unread_files import second_choices
from unet.errors import UserError
from unet.files import is_sheet
from unet.io.formats import stem
from unet.io.zarr_metadata import is_zarr, zarr_attributes

# Usual names of folders, in order of preference.
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "raw", "input", "inputs", "x")
LABEL_FOLDERS = (
    "labels", "label", "masks", "mask", "gt", "ground_truth", "groundtruth", "annotations",
    "annotation", "segmentations", "segmentation", "seg", "instances", "targets", "target", "y",
)  # fmt: skip
# Words in file names that tell labels from images: mask_01.tif beside img_01.tif.
_LABEL_WORD = re.compile(
    r"(?<![a-z])(labels?|masks?|gt|seg|segmentation|annotations?)(?![a-z])", re.I
)
_IMAGE_WORD = re.compile(r"(?<![a-z])(volume|images?|imgs?|raw)(?![a-z])", re.I)
_SEQUENCE, _FRAME = re.compile(r"\d\d"), re.compile(r"t\d{3,}\.tiff?", re.I)
TRAINING = ("train", "training", "stage1_train")
# Subfolders that are looked at, each as a dataset of its own.
MOST_DATASETS = 20


@dataclass(frozen=True)
class Place:
    """Where the images and labels of a dataset are, as the config says it.

    Attributes:
        root: folder that ``images`` and ``labels`` are relative to.
        images, labels, layout: as in the config; labels None: nothing to train on, or found by the
            layout itself.
        seen: what was seen, a line each.
        others: lines that could stand in the config instead, each with its reason.
        keys: further keys of the dataset.
    """

    root: Path
    images: str
    labels: str | None = None
    layout: str = "folders"
    seen: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> RawSource:
        return RawSource.below(self.root, self.images, self.labels, self.layout)

    def pairs(self) -> list[RawPair]:
        """All images, with their labels.

        Raises:
            UserError: see :func:`unet.data.layouts.find_pairs`.
        """
        return find_pairs(self.source)


def recognise(folder: Path) -> dict[str, Place]:
    """The datasets in a folder, by name: one, or one per subfolder. All have labels.

    Raises:
        UserError: no such folder, no images, or images without labels.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; write the folder that holds your images")
    folder = folder.resolve()
    if place := place_in(folder):
        return {dataset_name(folder.name): place}
    below = {}
    inside = subfolders(folder)
    for child in inside[:MOST_DATASETS]:
        if place := place_in(child):
            name = dataset_name(child.name)
            below[name] = replace(
                place, root=folder, images=_below(child.name, place.images, place.layout),
                labels=_labels_below(child.name, place),
            )  # fmt: skip
    trained = [name for name in below if name.lower() in TRAINING]
    if trained:
        rest = sorted(below.keys() - trained)
        seen = below[trained[0]].seen
        if rest:
            seen += (f"left out: {', '.join(rest)} (the split draws its own test images)",)
        return {dataset_name(folder.name): replace(below[trained[0]], seen=seen)}
    if below:
        return below
    raise UserError(_nothing(folder, inside))


def place_in(folder: Path) -> Place | None:
    """The dataset in this folder itself; None if no form fits."""
    for form in FORMS:
        place = form(folder)
        if place is not None and _labelled(place):
            return place
    return None


def _labelled(place: Place) -> bool:
    try:
        return any(pair.label is not None for pair in place.pairs())
    except UserError:
        return False


def dataset_name(name: str) -> str:
    """A name for the config from that of a folder."""
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:64] or "mine"
    return f"my-{clean}"[:64] if clean in RESERVED_NAMES else clean


def subfolders(folder: Path) -> list[Path]:
    """Folders inside that may hold images, sorted; zarr stores are files for us."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_dir() and not p.name.startswith(".") and not is_image(p) and not is_zarr(p)
    )


def images_in(folder: Path) -> list[Path]:
    """Images directly in a folder, sorted, without previews of others."""
    found = sorted(p for p in folder.iterdir() if is_image(p))
    left = second_choices(found)
    return [path for path in found if path not in left]


# The forms


def _zarr(folder: Path) -> Place | None:
    """An OME-Zarr image or plate, or a folder of them, with labels inside."""
    if is_zarr(folder):
        return replace(_of_stores(folder.parent, [folder]), images=folder.name)
    stores = [p for p in folder.iterdir() if p.suffix.lower() == ".zarr" and p.is_dir()]
    return _of_stores(folder, stores) if stores else None


def _of_stores(root: Path, stores: list[Path]) -> Place:
    plates = [p for p in stores if "plate" in zarr_attributes(p)]
    images = stores[0].name if len(stores) == 1 else "."
    if plates:
        seen = f"{_count(len(plates), 'OME-Zarr plate')}: the fields of a well are a group"
        return Place(root, images, layout="plate", seen=(seen,))
    seen = f"{_count(len(stores), 'OME-Zarr image')} with labels inside"
    return Place(root, images, layout="ome-zarr", seen=(seen,))


def _sheet(folder: Path) -> Place | None:
    """A table with a column ``image``."""
    for path in sorted(p for p in folder.iterdir() if is_sheet(p.name)):
        try:
            rows = read_rows(path, ignore_warning)
        except UserError:
            continue
        if rows and "label" in rows[0][1]:
            columns = rows[0][1]
            keys: dict[str, Any] = {}
            for column in ("part", "split"):
                values = {row.get(column, "").lower() for _, row in rows}
                if {"train", "test"} <= values <= {"train", "val", "test"}:
                    keys = {"split": {"column": column}}
                    break
            seen = f"the sheet {path.name} with {len(rows)} rows: {', '.join(columns)}"
            return Place(folder, path.name, seen=(seen,), keys=keys)
    return None


def _nnunet(folder: Path) -> Place | None:
    if not ((folder / "imagesTr").is_dir() and (folder / "labelsTr").is_dir()):
        return None
    return Place(folder, ".", layout="nnunet", seen=("nnU-Net's folders imagesTr and labelsTr",))


def _ctc(folder: Path) -> Place | None:
    """Cell Tracking Challenge: 01/t000.tif and 01_GT/SEG."""
    found = [
        p.name
        for p in subfolders(folder)
        if _SEQUENCE.fullmatch(p.name) and any(_FRAME.fullmatch(f.name) for f in p.iterdir())
    ]
    if not found:
        return None
    seen = f"sequences of the Cell Tracking Challenge: {', '.join(found)}"
    return Place(folder, ".", layout="ctc", seen=(seen,))


def _pair_of_folders(folder: Path) -> Place | None:
    """A folder of images and one of labels, by their names; or labels/ beside the images."""
    there = {p.name.lower(): p for p in subfolders(folder)}
    images = [there[name] for name in IMAGE_FOLDERS if name in there and images_in(there[name])]
    labels = [there[name] for name in LABEL_FOLDERS if name in there and images_in(there[name])]
    if labels and not images:
        others = [p for p in there.values() if p not in labels and images_in(p)]
        images = others if len(others) == 1 else [folder] if images_in(folder) else []
    matches = [(i, label, n) for i in images for label in labels if (n := _matches(i, label))]
    if not matches:
        return None
    image, label, number = max(matches, key=lambda match: match[2])
    name = "." if image == folder else image.name
    seen = f"images in {name}/, labels in {label.name}/: {_count(number, 'pair')} by name"
    rest = tuple(
        (f"labels: {other.name}", f"{_count(n, 'pair')} by name")
        for i, other, n in matches
        if i == image and other != label
    )
    return Place(folder, name, label.name, seen=(seen,), others=rest)


def _matches(images: Path, labels: Path) -> int:
    """How many labels are named like an image."""
    one, two = ([Found(p, stem(p)) for p in images_in(f)] for f in (images, labels))
    try:
        return len(paired_by_name(one, two)[0])
    except UserError:
        # A stack and its labels may have any names.
        return 1 if len(one) == len(two) == 1 else 0


def _dsb2018(folder: Path) -> Place | None:
    """A folder per image: <id>/images with one file and <id>/masks with one per object."""
    inside = [p for p in subfolders(folder) if (p / "images").is_dir() and (p / "masks").is_dir()]
    if not inside or any(len(images_in(p / "images")) != 1 for p in inside):
        return None
    seen = f"{_count(len(inside), 'folder')} with one image and a mask file per object"
    return Place(folder, ".", layout="dsb2018", seen=(seen,))


def _one_folder(folder: Path) -> Place | None:
    """Labels beside the images, named like them with an ending: a.tif, a_masks.tif."""
    files = images_in(folder)
    ending = common_ending([Found(p, stem(p)) for p in files])
    if ending is None:
        return None
    labels = [p for p in files if stem(p).endswith(ending)]
    # A glob takes one format: the most frequent one.
    format_, _ = Counter(p.name[len(stem(p)) :] for p in labels).most_common(1)[0]
    seen = f"{len(labels)} labels beside their images: names that end in {ending}"
    return Place(folder, ".", f"*{ending}{format_}", seen=(seen,))


def _by_words(folder: Path) -> Place | None:
    """Labels beside the images, told by a word: img_01.tif, mask_01.tif."""
    files = images_in(folder)
    labels = [p for p in files if _LABEL_WORD.search(stem(p))]
    images = [p for p in files if p not in labels]
    pairs = []
    for label in labels:
        base = _LABEL_WORD.sub("", stem(label))
        same = [p for p in images if base in (stem(p), _IMAGE_WORD.sub("", stem(p)))]
        pairs += [(same[0], label)] if len(same) == 1 else []
    if not pairs:
        return None
    if len(pairs) == 1:
        image, label = pairs[0]
        left = sorted({p.name for p in images} - {image.name})
        seen = [f"{image.name} with its label {label.name}"]
        seen += [f"left out, no label: {', '.join(left[:5])}"] if left else []
        return Place(folder, image.name, label.name, "stack", seen=tuple(seen))
    one, two = (_pattern(files) for files in zip(*pairs, strict=True))
    seen = [f"{len(pairs)} images {one} with labels {two}"]
    return Place(folder, one, two, seen=tuple(seen))


def _pattern(files: Iterable[Path]) -> str:
    """A glob: what the names have in common, with a * for the rest."""
    names = [path.name for path in files]
    start, end = _common(names), _common([name[::-1] for name in names])[::-1]
    # Digits at the joints may differ in other files.
    start, end = start.rstrip("0123456789"), end.lstrip("0123456789")
    return f"{start}*{end}"


def _common(names: list[str]) -> str:
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first if same is None else first[:same]


FORMS: tuple[Callable[[Path], Place | None], ...] = (
    _sheet,
    _nnunet,
    _ctc,
    _pair_of_folders,
    _zarr,
    _dsb2018,
    _one_folder,
    _by_words,
)


# What is said about other folders


def _below(parent: str, pattern: str, layout: str) -> str:
    return parent if pattern == "." else f"{parent}/{pattern}"


def _labels_below(parent: str, place: Place) -> str | None:
    return None if place.labels is None else f"{parent}/{place.labels}"


def _nothing(folder: Path, inside: list[Path]) -> str:
    with_images = [p for p in (folder, *inside) if images_in(p)]
    if with_images:
        number = sum(len(images_in(p)) for p in with_images)
        where = ", ".join(p.name for p in with_images[:3])
        return (
            f"{folder}: {_count(number, 'image')} ({where}) without labels: nothing to train on. "
            "Put masks named like the images into labels/ beside images/; or apply a trained "
            f"model: unet predict MODEL {with_images[0]}"
        )
    return (
        f"{folder}: no images (.tif, .tiff, .png, .zarr) in it or its subfolders; convert "
        "others to TIFF or OME-Zarr with Fiji or bioformats2raw"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
