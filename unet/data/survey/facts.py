"""The facts that a survey of a dataset collects, as plain values that go to JSON and back. Light.

Lengths and areas are in pixels of the files (voxels in 3D) unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unet.data.survey.findings import Finding


@dataclass(frozen=True)
class SurveyedImage:
    """One image of the dataset.

    Attributes:
        id, image, label, axes, shape, dtype, pixel_size_um, channels, group, status, reason, page,
            inverted: as in :class:`unet.data.records.ImageRecord`.
        low, median, high: percentiles 0.5, 50 and 99.5 of each channel; None if not measured (an
            unusable image, or one that is not among the sampled ones).
        largest: the largest value.
        saturated: share (0 to 1) of pixels with the largest value that the camera can give.
        sharpness: a focus measure, comparable between the images of the dataset.
        hash: perceptual hash of the first channel, hexadecimal.
        objects: number of objects (instances), or of classes present.
        foreground: share (0 to 1) of the pixels that belong to objects or to classes other than the
            first.
    """

    id: str
    image: str
    label: str = ""
    axes: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    pixel_size_um: tuple[float, ...] | None = None
    channels: tuple[str, ...] = ()
    group: str = ""
    status: Literal["ok", "quarantined"] = "ok"
    reason: str = ""
    low: tuple[float, ...] | None = None
    median: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    largest: float | None = None
    saturated: float | None = None
    sharpness: float | None = None
    hash: str | None = None
    objects: int | None = None
    foreground: float | None = None
    page: int | None = None
    inverted: bool = False


@dataclass(frozen=True)
class SurveyedClass:
    """One class (task semantic), or ``background`` and ``foreground`` (task instances).

    Attributes:
        value: in the label files; None for ``foreground``.
        share: of the pixels of all labels, 0 to 1. Of one label it is the share of the pixels that
            are not ignored; each label counts by its number of pixels.
        intensity: mean of the first channel; None for a class without pixels.
        images: number of labelled images in which it occurs.
    """

    name: str
    value: int | None
    share: float
    intensity: float | None
    images: int


@dataclass(frozen=True)
class SurveyedObjects:
    """The objects of all measured labels (task instances).

    Attributes:
        count: number of objects.
        per_image: least, median and most objects of an image that was measured as a whole; None if
            all were too large for it.
        area: 5th, 50th and 95th percentile, in pixels.
        diameter: the same of the equivalent diameter (of a disc or ball of that area), in pixels.
        touching: share (0 to 1) of objects that touch another one.
        at_edge: share of objects cut by the image's edge, in images that were measured as a whole;
            None if there are no such objects.
        with_holes: number of objects with holes.
        in_pieces: number of ids with several separate pieces.
        empty_images: ids of labelled images without an object.
    """

    count: int
    per_image: tuple[int, float, int] | None
    area: tuple[float, float, float]
    diameter: tuple[float, float, float]
    touching: float
    at_edge: float | None
    with_holes: int
    in_pieces: int
    empty_images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alike:
    """Two images that look alike.

    Attributes:
        one, other: ids.
        kind: "same" pixels; "near" duplicates (perceptual hash); "neighbours": crops of one field
            that continue each other at an edge.
        leak: whether they are in different parts of a split (one is trained on, the other tested).
    """

    one: str
    other: str
    kind: Literal["same", "near", "neighbours"]
    leak: bool = False


@dataclass(frozen=True)
class SurveyedMasks:
    """The masks of another tool (``compare``).

    Attributes:
        tool: name in the config.
        files: number of mask files, of whatever image.
        kinds: endings of the files that are used, such as ".tif".
        tested: number of images that the models are tested on.
        found: how many of these have a mask.
        missing: ids of those that have none.
        opened: number of masks that were looked at (all, or some of many).
        unfit: ids of the images whose mask cannot be scored, of those that were looked at.
    """

    tool: str
    files: int = 0
    kinds: tuple[str, ...] = ()
    tested: int = 0
    found: int = 0
    missing: tuple[str, ...] = ()
    opened: int = 0
    unfit: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSurvey:
    """All facts about a dataset.

    Attributes:
        dataset: name in the config.
        task, label_kind, layout: as understood, from the config.
        images: all images, usable or not, sorted by id.
        labelled: number of usable images with a label.
        measured: number of images whose pixels were measured (all, or a sample of them).
        middles: number of measured images that were too large: their objects, intensities of
            classes and focus are those of a region in their middle, not of the whole image.
        middle: shape of that region (the most frequent one); empty without any.
        images_alone, labels_alone: files that found no partner.
        unread: ending of files that were not read -> their number.
        bits: bits that the values need, if fewer than those of the type (12 of 16); otherwise None.
        classes: empty without labels.
        objects: None for task semantic or without labels.
        splits: fold -> part -> number of images; empty if all images are predicted only.
        groups: number of groups of images; 0 if none are defined.
        alike: pairs of images that look alike.
        findings: worst first.
        compared: the masks of other tools, in the order of the config.
    """

    dataset: str
    task: str
    label_kind: str
    layout: str
    images: tuple[SurveyedImage, ...]
    labelled: int
    measured: int
    images_alone: tuple[str, ...] = ()
    labels_alone: tuple[str, ...] = ()
    unread: Mapping[str, int] | None = None
    bits: int | None = None
    classes: tuple[SurveyedClass, ...] = ()
    objects: SurveyedObjects | None = None
    splits: Mapping[int, Mapping[str, int]] | None = None
    groups: int = 0
    alike: tuple[Alike, ...] = ()
    findings: tuple[Finding, ...] = ()
    middles: int = 0
    middle: tuple[int, ...] = ()
    compared: tuple[SurveyedMasks, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        from pydantic import TypeAdapter

        made: dict[str, Any] = TypeAdapter(DatasetSurvey).dump_python(self, mode="json")
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetSurvey:
        """The survey that :meth:`to_json` gave."""
        from pydantic import TypeAdapter

        return TypeAdapter(DatasetSurvey).validate_python(value)
