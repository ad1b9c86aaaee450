"""Finds files by folder or glob, matches images and labels by name, and makes image ids."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from unet.data.dataset_warnings import Warn, ignore_warning
from unet.data.file_patterns import left_out_line, plate_images
from unet.data.globs import glob_paths, translated
from unet.data.unread_files import left_out_lines, second_choices, warn_of_unread_files
from unet.errors import UserError
from unet.files import is_pattern
from unet.io.array_paths import split_inside, with_inside
from unet.io.formats import (
    ARRAY_FILES,
    LABEL_OUTLINES,
    LABEL_READERS,
    NAMED,
    WHOLE,
    format_of,
    label_stem,
    stem,
)
from unet.io.zarr_metadata import SubImage, images_inside

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_ID = 100
# OME-Zarr reserves this folder in a collection.
_TAKEN = "OME"
# Names that tools give to labels next to images: img_000_masks.tif (Cellpose) and others.
_LIKE_LABELS = re.compile(
    r"(.+?)([_-](?:cp_masks?|masks?|labels?|labelled|seg|segmentation|gt|instances))", re.IGNORECASE
)


@dataclass(frozen=True)
class Found:
    """A file and what it can be matched by.

    Attributes:
        path: as found.
        name: its path below the glob's fixed part (or the folder), without the format's suffix.
        wild: the texts that the glob's wildcards matched; empty for a folder.
        group, columns: well and other properties of a plate's field, as in a sheet.
    """

    path: Path
    name: str
    wild: tuple[str, ...] = ()
    group: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def is_image(path: Path) -> bool:
    """Whether a file (or .zarr folder) has the suffix of an image and is not hidden."""
    return _is_of(path, WHOLE)


def _is_of(path: Path, formats: Collection[str]) -> bool:
    return format_of(path) in formats and not path.name.startswith(".")


# Sort key: the same order as that of paths, but much faster.
_parts = attrgetter("parts")


def composed(text: str) -> str:
    """The text with each accented letter as one character (NFC). macOS splits them in file names,
    but names that look the same must be equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spelling(name: str) -> str:
    """A key that is equal for names that are the same file on some file systems."""
    return composed(name).lower()


# Keys to match images and labels, in order of preference.
MATCHES: tuple[Callable[[Found], tuple[str, ...]], ...] = (
    lambda f: (composed(f.name),),
    lambda f: (composed(f.name.rpartition("/")[2]),),
    lambda f: tuple(map(composed, f.wild)) or (composed(f.name),),
)


def find(
    pattern: str, root: Path, key: str, warn: Warn = ignore_warning, *, labels: bool = False
) -> list[Found]:
    """Images in a folder, or matching a glob or pattern (:mod:`unet.data.file_patterns`), sorted by
    path; plates and collections are replaced by their images.

    Args:
        pattern: absolute, or relative to ``root``. A folder stands for all images directly in it;
            ``*.h5::/raw`` for the array ``raw`` in each file.
        key: of the config, for messages.
        warn: receives a warning about files that are not read.
        labels: whether they are labels, which no JPEG can be; files of formats that only labels
            have are taken if there are no others.

    Raises:
        UserError: no such folder, nothing matches, or two files have the same name.
    """
    where, inside = split_inside(root / Path(pattern).expanduser())
    wanted = ARRAY_FILES if inside else WHOLE
    paths: list[Path] = []
    if is_pattern(pattern) and not where.exists():
        fixed, paths = glob_paths(where)
        found = _of_pattern(where, fixed, filter(is_image, paths), key, warn)
    elif glob.has_magic(str(where)) and not where.exists():
        fixed, paths = glob_paths(where)
        found = _matched(where, fixed, _readable(paths, wanted, labels=labels), labels=labels)
    elif where.is_dir() and where.suffix.lower() != ".zarr" and images_inside(where) is None:
        paths = sorted(where.iterdir(), key=_parts)
        readable = _readable(paths, WHOLE, labels=labels)
        found = [Found(p, label_stem(p) if labels else stem(p)) for p in readable]
    elif where.exists():
        found = [Found(where, label_stem(where) if labels else stem(where))]
    else:
        raise UserError(f"{key}: no folder or file {where}; write a folder, a glob or a sheet.csv")
    if not inside:
        taken = {item.path for item in found}
        warn_of_unread_files((path for path in paths if path not in taken), key, warn)
        found = _first_choices(found, key, warn, labels=labels)
    found = _named(found, key, warn)
    alone = len(found) == 1 and found[0].path == where
    if inside:
        found = [replace(item, path=with_inside(item.path, inside)) for item in found]
    else:
        found = [one for item in found for one in _unfolded(item, alone)]
    if not found:
        raise UserError(f"{key}: {_nothing(where, wanted, paths)}")
    _check_unique(found, key)
    return found


def _nothing(where: Path, wanted: Collection[str], paths: Iterable[Path]) -> str:
    kinds = ", ".join(sorted(wanted))
    if files := [path for path in paths if _is_of(path, NAMED)]:
        from unet.io.hdf5_reader import unnamed

        return str(unnamed(files[0]))
    return f"{where} matches no image ({kinds}); write dir/*.tif or a folder"


def _unfolded(item: Found, alone: bool) -> list[Found]:
    """The images of a plate or a collection, otherwise the item; ``alone``: it is the only item."""
    if not (alone or item.path.suffix.lower() == ".zarr") or not item.path.is_dir():
        return [item]
    parts = images_inside(item.path)
    if parts is None:
        return [item]
    if len(parts) == 1 and not parts[0].well:
        return [Found(parts[0].path, item.name)]
    before = "" if alone and any(part.well for part in parts) else f"{item.name}-"
    plate = item.name if before else ""
    return [
        Found(p.path, before + p.name, (), before + p.well if p.well else "", _placed(p, plate))
        for p in parts
    ]


def _placed(part: SubImage, plate: str) -> Mapping[str, str]:
    """The columns of an image in a plate, with the name of the plate if there may be several."""
    return {"plate": plate, **part.columns} if plate and part.columns else part.columns


def _named(found: list[Found], key: str, warn: Warn) -> list[Found]:
    """The files whose names can be written into a table.

    Raises:
        UserError: there are none.
    """
    # Python represents undecodable bytes in names as surrogates.
    strange = [item for item in found if _SURROGATE.search(item.name)]
    if not strange:
        return found
    name = strange[0].path.name
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        # Leaving the file out would give other results than in another locale.
        raise UserError(
            f"{key}: {name!a}: this locale reads file names as {encoding}; run with LC_ALL=C.UTF-8"
        )
    text = f"{name!a}: a file name that is not UTF-8; rename it"
    if len(strange) == len(found):
        raise UserError(f"{key}: {text}")
    warn(f"{key}: {len(strange)} of {len(found)} files are not read; {text}")
    return [item for item in found if item not in strange]


def _first_choices(found: list[Found], key: str, warn: Warn, *, labels: bool) -> list[Found]:
    left = second_choices((item.path for item in found), labels=labels)
    for line in left_out_lines(left):
        warn(f"{key}: {line}")
    return [item for item in found if item.path not in left] if left else found


def warn_of_label_names(found: list[Found], key: str, warn: Warn) -> None:
    """Warns about images that are named like labels of other images."""
    if warn is ignore_warning:
        return
    names = {item.name for item in found}
    parts = [(item, _LIKE_LABELS.fullmatch(item.name)) for item in found]
    pairs = [(item, match[1]) for item, match in parts if match and match[1] in names]
    if pairs:
        item, base = pairs[0]
        warn(
            f"{key}: {len(pairs)} of {len(found)} images are named like the labels of others, such "
            f"as {item.path.name} next to {base}; if they are labels, write a glob that excludes "
            "them"
        )


def common_ending(found: list[Found]) -> str | None:
    """The name ending that marks some of the files as labels of others, such as ``_masks``; None
    unless there is exactly one."""
    names = {item.name for item in found}
    parts = filter(None, map(_LIKE_LABELS.fullmatch, names))
    endings = {match[2] for match in parts if match[1] in names}
    return endings.pop() if len(endings) == 1 else None


def _readable(paths: list[Path], wanted: Collection[str], *, labels: bool) -> list[Path]:
    """The paths of the formats; without any, the labels of other formats if ``labels``."""
    images = [path for path in paths if _is_of(path, wanted)]
    if images or not labels or wanted is not WHOLE:
        return images
    others = LABEL_OUTLINES | LABEL_READERS.keys()
    return [p for p in paths if p.suffix.lower() in others and not p.name.startswith(".")]


def _matched(where: Path, fixed: Path, paths: Iterable[Path], *, labels: bool) -> list[Found]:
    expression = re.compile(translated(where.relative_to(fixed).as_posix()))
    bare = label_stem if labels else stem
    found = []
    for path in paths:
        below = path.relative_to(fixed)
        match = expression.fullmatch(below.as_posix())
        wild = tuple(bare(Path(part)) for part in match.groups("")) if match else ()
        found.append(Found(path, (below.parent / bare(path)).as_posix(), wild))
    return found


def _of_pattern(
    where: Path, fixed: Path, paths: Iterable[Path], key: str, warn: Warn
) -> list[Found]:
    images, left = plate_images(where, fixed, paths, key)
    if left:
        warn(left_out_line(left, where, key))
    return [Found(image.path, image.id, (), image.group, image.columns) for image in images]


def _check_unique(found: Iterable[Found], key: str) -> None:
    seen: dict[str, Path] = {}
    for item in found:
        other = seen.setdefault(spelling(item.name), item.path)
        if other != item.path:
            same = composed(str(other)) == composed(str(item.path))
            hidden = " (their accents are stored in two ways, one is that of macOS)" if same else ""
            raise UserError(
                f"{key}: {other} and {item.path} have the same name{hidden}; rename one, narrow "
                "the glob, or list the images in a sheet.csv"
            )


def paired_by_name(images: list[Found], labels: list[Found]) -> tuple[dict[Path, Path], list[Path]]:
    """The label of each image, matched by name, or, if no name matches, by the wildcards' texts.

    Returns:
        the label of each image that has one, and the labels without an image.

    Raises:
        UserError: neither way matches any image.
    """
    for key in MATCHES:
        table: dict[tuple[str, ...], Path] = {}
        for item in labels:
            table.setdefault(key(item), item.path)
        keys = [key(item) for item in images]
        # A key that stands for two files is ambiguous.
        if len(table) < len(labels) or len(set(keys)) < len(keys):
            continue
        pairs = {i.path: table[k] for i, k in zip(images, keys, strict=True) if k in table}
        if pairs:
            used = set(pairs.values())
            return pairs, [item.path for item in labels if item.path not in used]
    raise UserError(
        f"labels: none of {len(labels)} labels is named like an image (such as {labels[0].path} "
        f"and {images[0].path}); name each label like its image, write globs whose * match the "
        "same text, or list the pairs in a sheet.csv"
    )


def safe_id(name: str) -> str:
    """An id that is safe as a folder name and depends only on ``name``, not on other files: the
    name itself or, if it had to be changed, the new name with a few digits of a hash."""
    flat = name.replace("/", "-")
    plain = unicodedata.normalize("NFKD", flat).encode("ascii", "ignore").decode()
    clean = _UNSAFE.sub("_", plain).strip("._-")[:LONGEST_ID]
    same = clean == name or (clean == flat and "-" not in name)
    if clean and same and clean.upper() != _TAKEN:
        return clean
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{clean or 'image'}-{digits}"


def relative(path: Path, root: Path) -> str:
    """The path relative to ``root``, with forward slashes (and ``..`` if it lies outside)."""
    text, above = str(path), f"{root}{os.sep}"
    if text.startswith(above) and os.sep == "/" and ".." not in text:
        return text[len(above) :]  # as below, but ten times faster: there may be millions
    return Path(os.path.relpath(path, root)).as_posix()
