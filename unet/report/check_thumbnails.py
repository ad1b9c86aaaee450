"""Small pictures of a dataset's raw images with their labels, for the check's page."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.dataset_sections import DatasetSection
from unet.data.survey.facts import DatasetSurvey, SurveyedImage
from unet.errors import UserError, one_line
from unet.io.axes import DaskArray, LazyImage
from unet.io.images import open_image
from unet.io.mask_files import open_label_of
from unet.io.raw import RGB_NAMES
from unet.report.overlays import Marked, OverlayView, marked

log = logging.getLogger(__name__)

# Images shown: evenly spread ones, and at most as many more that findings name.
MOST = 12
SIDE = 400
# Longest side of what is shown: every n-th pixel of larger images.
LIMIT = 1200
# Sections of a volume among which the fullest one is searched.
SECTIONS = 48


@dataclass(frozen=True)
class Thumbnail:
    """A picture of an image.

    Attributes:
        id: of the image.
        image: data URI of the image.
        marks: data URI of what lies over it: outlines of objects, or tinted classes; "" without a
            label.
        note: which part or section it is, and what is wrong with it.
        named: whether a finding names the image.
    """

    id: str
    image: str
    marks: str = ""
    note: str = ""
    named: bool = False


def thumbnails(survey: DatasetSurvey, data: DatasetSection, root: Path) -> list[Thumbnail]:
    """Pictures of some usable images, evenly spread, and of those that findings name.

    Args:
        data: the dataset's section of the config, which says how files are read.
        root: the folder that the images' paths are relative to.
    """
    found = []
    for image, named in chosen(survey):
        try:
            found.append(_thumbnail(image, named, survey.task, data, root))
        except (UserError, OSError, MemoryError) as error:
            log.debug("%s: no thumbnail: %s", image.image, error)
            found.append(Thumbnail(image.id, "", note=_reason(error, root), named=named))
    return found


def _reason(error: BaseException, root: Path) -> str:
    return one_line(str(error).replace(f"{root}/", ""), 160) or type(error).__name__


def chosen(survey: DatasetSurvey, most: int = MOST) -> list[tuple[SurveyedImage, bool]]:
    """The images to show, by id, and whether a finding names them."""
    usable = [image for image in survey.images if image.status == "ok"]
    named = [image for image in usable if any(_names(f.where, image) for f in survey.findings)]
    # The first ones in the order of the findings are those that matter most.
    named = named[:most]
    labelled = [image for image in usable if image.label] or usable
    number = min(most, len(labelled))
    places = [round(i * (len(labelled) - 1) / max(1, number - 1)) for i in range(number)]
    spread = [labelled[place] for place in places]
    ids = {image.id for image in named}
    both = {image.id: image for image in (*named, *spread)}
    return [(both[name], name in ids) for name in sorted(both)]


def _names(where: str, image: SurveyedImage) -> bool:
    """Whether the place of a finding is this image (alone, or as the first of several)."""
    names = (image.id, image.image, image.label)
    return any(name and (where == name or where.startswith(f"{name} and ")) for name in names)


def _thumbnail(
    image: SurveyedImage, named: bool, task: str, data: DatasetSection, root: Path
) -> Thumbnail:
    opened = open_image(
        root / image.image,
        axes=data.axes,
        channels=data.channels,
        page=image.page,
        inverted=image.inverted,
    )
    label = None
    if image.label:
        files, classes = (root / image.image, root / image.label), data.classes
        label = open_label_of(
            *files, opened.shape[1:], axes=data.axes, page=image.page, classes=classes
        ).array
    if label is not None and label.shape != opened.shape[1:]:
        label = None
    notes = list[str]()
    section: tuple[int, ...] = ()
    if len(opened.shape) == 4:
        z = _section(opened.shape[1], label, data)
        section = (z,)
        notes.append(f"section z = {z} of {opened.shape[1]}")
    stride = -(-max(opened.shape[-2:]) // LIMIT)
    where = (slice(None, None, stride), slice(None, None, stride))
    pixels = _computed(opened.array, (slice(0, 3), *section, *where))
    if label is None:
        nothing = np.zeros(pixels.shape[1:], np.uint8)
        view = OverlayView(pixels, nothing, nothing, nothing > 0)
        uri, _ = _drawn(view, "instances", opened).uris("instances")
        return Thumbnail(image.id, uri, note=", ".join([*notes, "no label"]), named=named)
    truth = _shown(_computed(label, (*section, *where)), task, data)
    view = OverlayView(pixels, truth, truth, np.zeros(truth.shape, bool), stride)
    uri, marks = _drawn(view, task, opened).uris(task)
    return Thumbnail(image.id, uri, marks, ", ".join(notes), named)


def _drawn(view: OverlayView, task: str, opened: LazyImage) -> Marked:
    """The picture; colour photographs keep their colours."""
    drawn = replace(marked(view, task, SIDE), side="truth")
    if opened.channel_names[:3] != RGB_NAMES or view.image.dtype != np.uint8:
        return drawn
    from PIL import Image

    height, width = drawn.marks.shape
    photo = Image.fromarray(np.ascontiguousarray(np.moveaxis(view.image[:3], 0, -1)))
    pixels = np.array(photo.resize((width, height), Image.Resampling.LANCZOS))
    return replace(drawn, image=pixels)


def _computed(array: DaskArray, where: tuple[int | slice, ...]) -> NDArray[Any]:
    return np.asarray(array[where].compute(scheduler="synchronous"))


def _shown(label: NDArray[Any], task: str, data: DatasetSection) -> NDArray[np.integer[Any]]:
    """Class indices (task semantic) or ids of objects; 0 for ignored pixels."""
    for value in (data.ignore, data.background):
        if value is not None:
            label = np.where(label == value, 0 if task == "instances" else -1, label)
    if task == "instances":
        return label.astype(np.int64)
    indices = np.zeros(label.shape, np.int64)
    for index, value in enumerate((data.classes or {}).values()):
        indices[label == value] = index
    return indices


def _section(depth: int, label: DaskArray | None, data: DatasetSection) -> int:
    """The section of a volume with the most foreground; without a label the middle one."""
    if label is None:
        return depth // 2
    counts = dict(_foreground(depth, label, data))
    return max(counts, key=lambda z: (counts[z], -abs(z - (depth - 1) / 2)))


def _foreground(depth: int, label: DaskArray, data: DatasetSection) -> Iterator[tuple[int, int]]:
    first = next(iter((data.classes or {"background": 0}).values()))
    for z in range(0, depth, -(-depth // SECTIONS)):
        values = _computed(label, (z,))
        inside = values != first
        for value in (data.ignore, data.background):
            if value is not None:
                inside &= values != value
        yield z, int(np.count_nonzero(inside))


def legend(task: str, classes: Sequence[str]) -> Mapping[str, tuple[int, int, int]]:
    """What the marks mean -> their colour; the first class has none."""
    from unet.report.overlays import mark_colour

    if task == "instances":
        return {"outline of a labelled object": mark_colour(task, 1, "truth")[0]}
    return {name: mark_colour(task, k, "truth")[0] for k, name in enumerate(classes) if k > 0}
