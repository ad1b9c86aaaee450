"""The sections of the config for the stages prepare, stitch, evaluate and report."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from unet.config.choices import FAMILY_TABLE, METHOD_TABLE, NORMALIZATION_TABLE, OneOf
from unet.config.section_base import Count, Section, Share, Shown


class NormalizeSection(Section):
    reruns: ClassVar[str] = "prepare"

    method: Annotated[str, OneOf(NORMALIZATION_TABLE)] = "percentile"
    """How intensities are scaled."""
    low: Annotated[Annotated[float, Field(ge=0, le=100)], Shown("number, 0 to 100, below high")] = (
        1.0
    )
    """Lower percentile."""
    high: Annotated[float, Field(ge=0, le=100)] = 99.8
    """Upper percentile. Lower it if bright specks dominate the scale."""
    scope: Literal["image", "dataset"] = "image"
    """Use the statistics of each image or of the whole dataset. Write dataset if absolute
    intensities are meaningful; a new image then changes all of them."""

    @model_validator(mode="after")
    def _ordered(self) -> NormalizeSection:
        if self.low >= self.high:
            raise ValueError(f"low must be below high (got low {self.low}, high {self.high})")
        return self


class PrepareSection(Section):
    reruns: ClassVar[str] = "prepare"

    normalize: NormalizeSection = NormalizeSection()
    """How intensities are scaled."""
    tile: Annotated[int, Field(ge=32, le=8192)] = 512
    """Side of a chunk of the store, in pixels, cut to the image. Reading is fastest at about the
    size of a training patch. A chunk of a volume has 8 sections and the same number of voxels."""
    shard: Annotated[int, Field(ge=1, le=64)] = 4
    """Chunks along a side of a file. More chunks: fewer and larger files, more memory while
    writing."""


class StitchSection(Section):
    reruns: ClassVar[str] = "stitch"

    threshold: Share | Literal["auto"] = 0.5
    """Minimum probability for a pixel to be foreground (components, watershed), inside (grow), or
    the second of two classes. auto: chosen on the validation images. Has no effect for three or
    more classes, where the largest probability wins."""
    method: Annotated[str, OneOf(METHOD_TABLE)] = "components"
    """How objects are made (task instances)."""
    grow_px: Annotated[int, Field(ge=0, le=512)] = 8
    """For grow: largest distance that a seed grows, in pixels. Write a little more than the border
    width."""
    watershed_h: Share = 0.1
    """For watershed: how far the predicted distance (0 to 1) must fall between two peaks for them
    to be two objects. Raise it if objects are cut, lower it if neighbours are joined."""
    connectivity: Literal["face", "full"] = "face"
    """face: pixels of an object touch at their sides. full: also at corners."""
    min_size: Count = 16
    """Objects smaller than this, in pixels, are dropped (task instances)."""
    fill_holes: Count = 64
    """Holes of up to this many pixels are filled (task instances)."""
    tiff: bool = True
    """Also write the labels as TIFF masks."""
    ome_zarr: Annotated[
        Literal["0.5", "0.4"],
        Shown("0.5, 0.4"),
        Field(json_schema_extra={"type": ["string", "number"], "enum": ["0.5", "0.4", 0.5, 0.4]}),
    ] = "0.5"
    """Version of the OME-Zarr written. 0.4 (Zarr v2, a file per chunk) is for programs that do not
    read 0.5 yet."""
    zip_images: Literal["auto", "always", "never"] = "auto"
    """Store an image of up to 512 pixels a side (volumes: 64) as a zip file, `<id>.ozx`, instead of
    24 files and folders. auto: if the fold has over 200 images, but not with OME-Zarr 0.4."""
    pyramid: Annotated[int, Field(ge=1, le=10)] = 3
    """Largest number of levels of the OME-Zarr pyramids. No level is smaller than 64 pixels; an
    image of up to 512 pixels a side (volumes: 64) has only one."""
    label_pyramid: Literal["nearest", "mode"] = "nearest"
    """Coarser levels of the labels. nearest: every second pixel. mode: the most frequent of four (a
    little slower, smoother)."""
    geojson: bool = False
    """Also write the outlines of objects as GeoJSON, for QuPath and GIS programs (task instances,
    2D)."""
    rois: bool = False
    """Also write the outlines of objects as ImageJ ROIs (task instances, 2D)."""
    write_back: Annotated[str | None, Shown("labels/<name>", "none")] = None
    """Also write the results as a label of this name into the OME-Zarr images or plates that they
    were predicted from. It replaces only a label that this pipeline wrote."""

    @field_validator("write_back")
    @classmethod
    def _label_named(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"labels/[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(
                f"got {value!r}; write labels/ and a name of letters, digits, ., _ and -, such as "
                "labels/nuclei"
            )
        return value

    @field_validator("ome_zarr", mode="before")
    @classmethod
    def _version_as_text(cls, value: Any) -> Any:
        # YAML reads 0.4 without quotes as a number.
        return str(value) if isinstance(value, float) else value


class EvaluateSection(Section):
    reruns: ClassVar[str] = "evaluate"

    metrics: Annotated[
        tuple[Annotated[str, OneOf(FAMILY_TABLE)], ...],
        Field(min_length=1),
        Shown(reruns="evaluate, compare"),
    ] = ("pixel", "instance", "objects", "rand", "boundary", "calibration")
    """Families of metrics: docs/metrics.md."""
    topology_class: Annotated[str | None, Shown("name of a class", "the last one")] = None
    """The class whose regions are the cells (topology, isbi2012)."""
    boundary: Literal["thinned", "as-is"] = "thinned"
    """For topology. thinned: predicted membranes are thinned first, as in the ISBI 2012
    challenge."""
    boundary_tolerance: Annotated[
        str, Shown("a distance in px or um, such as 0.5 um", reruns="evaluate, compare")
    ] = "2 px"
    """For boundary: how far off an outline may be and still count as correct. um needs the pixel
    size of every image."""

    @field_validator("boundary_tolerance")
    @classmethod
    def _distance_known(cls, value: str) -> str:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(px|um)\s*", value)
        if match is None or not float(match[1]) > 0:
            raise ValueError(f"got {value!r}; write a distance above 0, such as 2 px or 0.5 um")
        return f"{float(match[1]):g} {match[2]}"


# Largest number of random sign flips of a test between models.
MOST_FLIPS = 100_000


class ReportSection(Section):
    reruns: ClassVar[str] = "report"

    confidence: Annotated[
        float, Field(gt=0.5, lt=1), Shown(reruns="report (with predict_with: quality)")
    ] = 0.95
    """Level of the intervals, also of those in `quality.csv`. 1 - `confidence` is the level of the
    tests between models.
    `report.bootstrap` must be at least 1 / (1 - `confidence`) - 1, since no difference could be
    clear with fewer."""
    bootstrap: Annotated[int, Field(ge=100, le=MOST_FLIPS)] = 2000
    """Random sign flips of a test between models. With up to 12 images or groups all flips are
    tried instead."""
    overlays: Annotated[int, Field(ge=0, le=20)] = 3
    """Images that the gallery of a dataset's page shows large, evenly spaced from the worst to the
    best; 3: worst, median, best. Large images among them also get a detail with the most errors."""

    @model_validator(mode="after")
    def _can_be_clear(self) -> ReportSection:
        # The smallest possible p-value is 1 / (bootstrap + 1).
        least = math.ceil(1 / (1 - self.confidence) - 1e-6) - 1
        if self.bootstrap < least:
            lower = f"a confidence of at most {1 - 1 / MOST_FLIPS:g}"
            advice = f"bootstrap: {least}" if least <= MOST_FLIPS else lower
            raise ValueError(
                f"got bootstrap {self.bootstrap} with confidence {self.confidence:g}: no "
                f"difference could be clear; write {advice}"
            )
        return self
