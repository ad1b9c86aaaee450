"""Pictures of predicted images: the image with outlines or classes, and a sheet of many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unet.data.store import OwnGrid
from unet.files import replacing
from unet.prediction.stitch.segmentation import Segmentation
from unet.report.cuts import cuts_of
from unet.report.overlays import GROUND, Marked, OverlayView, marked

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# Longest side of what is read: every n-th pixel of larger images.
LIMIT = 1600
# Side of the blocks in which it is read.
BLOCK = 1024
# The sheet: images, columns at most, side of an image, gap and height of a line of text, in pixels.
SHEET_IMAGES, SHEET_COLUMNS = 24, 6
SHEET_SIDE, GAP, LINE = 312, 10, 20


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its marks; ``note`` says which plane of a volume it is."""

    marked: Marked
    note: str = ""


def picture(
    prepared: OwnGrid, segmentation: Segmentation, image: str, task: str, side: int
) -> Picture:
    """The picture of an image, at most ``side`` pixels on the longer side; of a volume the section
    with the most foreground.

    Raises:
        UserError: a store lacks the image.
    """
    pixels, classes = prepared.image(image), segmentation.classes(image)
    labels = segmentation.instances(image) if task == "instances" else classes
    cut = cuts_of(classes, prepared.attrs(image).get("pixel_size_um"))[0]
    stride = -(-max(pixels.shape[-2:]) // LIMIT)
    section: tuple[int | slice, ...] = () if cut is None else (cut.index,)
    shown = every_nth(pixels, (slice(0, 3), *section), stride)
    pred = every_nth(_there(labels), section, stride)
    view = OverlayView(shown, pred, pred, np.zeros(pred.shape, bool), stride, labelled=False)
    return Picture(marked(view, task, side), "" if cut is None else cut.note)


def every_nth(array: Any, lead: tuple[int | slice, ...], stride: int) -> NDArray[Any]:
    """Every n-th pixel of every n-th row of a stored array [.., Y, X], read block by block, since
    one strided read would decode the whole array at once.

    Args:
        lead: indices of the axes before Y.
    """
    step = max(1, BLOCK // stride) * stride
    height, width = array.shape[-2:]
    rows = [
        np.concatenate(
            [
                np.asarray(array[(*lead, slice(y, y + step), slice(x, x + step))])[
                    ..., ::stride, ::stride
                ]
                for x in range(0, width, step)
            ],
            axis=-1,
        )
        for y in range(0, height, step)
    ]
    return np.concatenate(rows, axis=-2)


def _there(labels: Any) -> Any:
    if labels is None:
        raise ValueError("a segmentation of objects without instances")
    return labels


def write_sheet(
    path: Path, pictures: Sequence[tuple[Marked, str, str]], task: str, total: int
) -> None:
    """Writes a PNG with many small images, each with two lines of text, atomically.

    Args:
        pictures: image, name, and what was found in it.
        total: number of images of the result, of which these are some.
    """
    from PIL import Image, ImageDraw

    columns = min(SHEET_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = (SHEET_SIDE + GAP, SHEET_SIDE + 2 * LINE + GAP)
    top = LINE + GAP if len(pictures) < total else 0
    size = (columns * cell[0] + GAP, top + rows * cell[1] + GAP)
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    if top:
        text = f"{len(pictures)} of {total} images, evenly spread"
        draw.text((GAP, GAP), text, fill=(200, 204, 210), font=_font(14))
    for index, (one, name, found) in enumerate(pictures):
        x = GAP + index % columns * cell[0]
        y = top + GAP + index // columns * cell[1]
        small = _fitting(one.together(task))
        left, above = (SHEET_SIDE - small.shape[1]) // 2, (SHEET_SIDE - small.shape[0]) // 2
        sheet.paste(Image.fromarray(small), (x + left, y + above))
        for row, (text, colour) in enumerate(((name, (235, 237, 240)), (found, (168, 176, 186)))):
            place = (x, y + SHEET_SIDE + 2 + row * LINE)
            draw.text(place, _cut(text, SHEET_SIDE), fill=colour, font=_font(13))
    with replacing(path) as temporary, temporary.open("wb") as handle:
        sheet.save(handle, format="PNG", optimize=True)


def _fitting(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduced so that no side is longer than that of an image in the sheet."""
    from PIL import Image

    factor = min(1.0, SHEET_SIDE / max(rgb.shape[:2]))
    width, height = (max(1, round(n * factor)) for n in (rgb.shape[1], rgb.shape[0]))
    resized = Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized)


def _font(size: int) -> FreeTypeFont:
    """Matplotlib's own font, which has the letters of most languages."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )


def _cut(text: str, width: int) -> str:
    """The text, shortened in its middle if it is wider than ``width`` pixels."""
    font = _font(13)
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(_short(text, keep)) > width:
        keep -= 1
    return _short(text, keep)


def _short(text: str, keep: int) -> str:
    return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
