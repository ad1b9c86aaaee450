"""Labels of an image from a file of outlines. Such a file may hold those of many images.

``READERS`` maps a suffix to its reader. To add a format, write a function and add one line there
and one in :data:`unet.io.formats.OUTLINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from unet.errors import UserError, how_many
from unet.io import json_outlines, outline_files, table_outlines, xml_outlines
from unet.io.axes import DaskArray
from unet.io.outline_drawing import Drawing, Outline
from unet.io.raw import lazily

# Takes a file and the image's path; gives the outlines of that image, and how many entries of it
# are none.
Reader = Callable[[Path, Path], tuple[list[Outline], int]]

READERS: dict[str, Reader] = {
    ".geojson": lambda path, image: outline_files.read_geojson(path),
    ".roi": lambda path, image: outline_files.read_rois(path),
    ".zip": lambda path, image: outline_files.read_rois(path),
    ".json": json_outlines.read_json,
    ".xml": xml_outlines.read_cvat,
    ".csv": lambda path, image: table_outlines.read_napari(path),
}
# Side in pixels of the parts that are drawn at a time.
BLOCK = 2048


def open_outlines(
    path: Path,
    shape: tuple[int, ...],
    classes: Mapping[str, int] | None = None,
    *,
    image: Path = Path(),
) -> tuple[DaskArray, Drawing]:
    """Labels [Y, X] uint32 from outlines, drawn part by part, and what draws them.

    Args:
        path: a file whose suffix is in ``READERS``.
        shape: of the image.
        classes: name -> label value, for task semantic; None: the objects are numbered from 1.
        image: the image's path, which files of many images name.

    Raises:
        UserError: the file cannot be read or holds entries but no outline, the image is a volume
            or not in it, or an outline has no class.
    """
    if len(shape) != 2:
        raise UserError(
            f"{path}: outlines are flat, but the image is a volume of "
            f"{' x '.join(map(str, shape))}; give labels as TIFF or OME-Zarr"
        )
    outlines, skipped = READERS[path.suffix.lower()](path, image)
    if skipped and not outlines:
        # An empty file says that there are no objects; this one says nothing about objects.
        raise UserError(
            f"{path}: {how_many(skipped, 'feature')}, none of which is the outline of an object; "
            "write polygons or areas, or label images (TIFF or PNG)"
        )
    values = _numbers(outlines)
    if classes is not None:
        values = [_class_value(path, outline.kind, classes) for outline in outlines]
    drawing = Drawing(outlines, values, (shape[0], shape[1]), skipped)
    return lazily(drawing, tuple(min(BLOCK, n) for n in shape)), drawing


def _numbers(outlines: list[Outline]) -> list[int]:
    """The number of each outline's object, from 1 in the order of the file."""
    seen: dict[str, int] = {}
    names = [outline.whole or f"#{place}" for place, outline in enumerate(outlines)]
    return [seen.setdefault(name, len(seen) + 1) for name in names]


def _class_value(path: Path, kind: str, classes: Mapping[str, int]) -> int:
    if kind not in classes:
        has = f"the class {kind!r}" if kind else "no class"
        raise UserError(
            f"{path}: an outline has {has}; the dataset's classes are {', '.join(classes)}"
        )
    return classes[kind]
