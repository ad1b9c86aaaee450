"""Labels that this pipeline wrote into a user's OME-Zarr image, and the image without them.

A small file in such a label marks it, and says what the list of labels was before. So an image is
known to be unchanged although results were added to it, and results are not read as labels by
accident. Light: opens no array.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unet.errors import UserError
from unet.files import file_sha256
from unet.io.zarr_metadata import is_zarr, read_metadata

MARK = ".unet.json"
LABELS = "labels"
# The files with the list of labels, of Zarr v3 and v2.
LISTS = ("zarr.json", ".zattrs", ".zgroup")


def is_own(label: Path) -> bool:
    """Whether this pipeline wrote a label; also one that is being written."""
    return (label / MARK).is_file()


@dataclass(frozen=True)
class Before:
    """What was in the folder ``labels`` of an image before this pipeline wrote into it.

    Attributes:
        made: whether the folder was made for its labels.
        lists: name -> (time of the last change in nanoseconds, text) of the files with the list.
        own: the labels that it wrote.
    """

    made: bool
    lists: Mapping[str, tuple[int, str]]
    own: frozenset[Path] = frozenset()

    def to_json(self) -> dict[str, object]:
        return {"made": self.made, "lists": {name: list(one) for name, one in self.lists.items()}}


def before(image: Path) -> Before | None:
    """What was there before; None if this pipeline wrote nothing into the image.

    Raises:
        UserError: the file that says it is damaged.
    """
    folder = image / LABELS
    try:
        own = frozenset(p for p in folder.iterdir() if p.is_dir() and is_own(p))
    except OSError:
        return None  # the image has no labels, or is a file
    if not own:
        return None
    mark = min(own) / MARK
    found = read_metadata(mark)
    try:
        lists = {str(k): (int(time), str(text)) for k, (time, text) in found["lists"].items()}
        return Before(bool(found["made"]), lists, own)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{mark}: damaged; remove the folder {mark.parent}") from None


def as_it_is(image: Path) -> Before:
    """The same for an image that is about to get its first label."""
    folder, lists = image / LABELS, {}
    for name in LISTS:
        if (path := folder / name).is_file():
            lists[name] = path.stat().st_mtime_ns, path.read_bytes().decode()
    return Before(not folder.exists(), lists)


def image_sha256(image: Path) -> str:
    """:func:`unet.files.file_sha256` of an image without what this pipeline wrote into it."""
    was = before(image) if image.is_dir() else None
    if was is None:
        return file_sha256(image)
    # As if the files were there: the order and the content are those of file_sha256.
    texts = {image / LABELS / name: text for name, (_, text) in was.lists.items()}
    sha = hashlib.sha256()
    for path in sorted({*_files(image, was), *texts}):
        sha.update(str(path.relative_to(image)).encode() + b"\0")
        text = texts.get(path)
        one = file_sha256(path) if text is None else hashlib.sha256(text.encode()).hexdigest()
        sha.update(bytes.fromhex(one))
    return sha.hexdigest()


def _files(image: Path, was: Before) -> Iterator[Path]:
    left_out = left_out_of(image, was)
    for path in image.rglob("*"):
        if path.is_file() and not any(p in left_out for p in (path, *path.parents)):
            yield path


def left_out_of(image: Path, was: Before) -> frozenset[Path]:
    """The files and folders in an image that were not there before, or have changed."""
    folder = image / LABELS
    if was.made:
        return frozenset({folder})
    return was.own | {folder / name for name in LISTS}


def times_kept(image: Path) -> dict[Path, tuple[int, int]]:
    """The times of an image's folders, which :func:`restore_times` sets again, because they would
    say that the image has changed."""
    folders = [p for p in (image, image / LABELS) if p.is_dir()]
    return {p: ((s := p.stat()).st_atime_ns, s.st_mtime_ns) for p in folders}


def restore_times(times: Mapping[Path, tuple[int, int]]) -> None:
    for path, both in times.items():
        os.utime(path, ns=both)


def check_target(image: Path, name: str, key: str, label: Path | None = None) -> None:
    """Checks that a label can be written into an image.

    Args:
        name: of the label.
        key: that asks for it, for messages.
        label: the label that is read with the image.

    Raises:
        UserError: the image is no OME-Zarr, the label is not this pipeline's, or the folder cannot
            be written.
    """
    target = image / LABELS / name
    if not (image.is_dir() and is_zarr(image)):
        raise UserError(
            f"{key}: {image.name} is no OME-Zarr image, and only those have labels inside; leave "
            "it out, or convert the images with bioformats2raw"
        )
    if os.path.lexists(target) and not is_own(target):
        raise UserError(
            f"{key}: {target} exists, and this pipeline did not write it; write another name"
        )
    if label is not None and label.resolve() == target.resolve():
        raise UserError(f"{key}: {target} is the label that is read; write another name")
    folder = image / LABELS if (image / LABELS).is_dir() else image
    if not os.access(folder, os.W_OK):
        raise UserError(f"{key}: {folder} cannot be written; change its rights, or leave it out")
