"""Proposes values for a config from the facts of a survey, each with its reason.

For the fixed presets, before anything is prepared; preset ``auto`` measures the prepared images and
plans more closely. Where both decide the same thing, the rules are those of
:mod:`unet.training.auto.choose`. Pure: the same survey gives the same proposals. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low
from typing import Any

from unet.config.anisotropy import fitted
from unet.config.geometry import footprint
from unet.config.presets import PRESETS, Architecture
from unet.data.survey.facts import DatasetSurvey, SurveyedImage, SurveyedObjects
from unet.training.auto.choose import (
    MAX_WIDTH,
    MIN_BOTTOM,
    MIN_OBJECTS,
    MOST_DEPTH,
    USUAL_DEPTH,
    WIDTHS,
)

# Side of a patch to start from, in pixels of the finest axis; and the largest.
USUAL_PATCH = {2: 256, 3: 64}
LARGEST_PATCH = {2: 512, 3: 96}
# Volumes: fewer poolings than in planes, since a patch is smaller.
DEPTH_IN_3D = 3
# From this share of touching objects on, the network learns where one ends.
TOUCHING = 0.01
# Thickness of the border between objects: this share of an object, within limits.
BORDER_SHARE, THINNEST_BORDER, THICKEST_BORDER = 1 / 20, 2, 6
# An object must keep an inside: its border is at most this share of a small one.
BORDER_OF_SMALL = 1 / 4
# Seeds grow this much further than the border is thick.
GROW_BEYOND = 3
# Smaller objects than this share of a small one (5th percentile) are dropped.
SPECK_SHARE, SMALLEST_SPECK = 1 / 3, 4
SHORTEST_DISTANCE, LONGEST_DISTANCE = 2, 64


@dataclass(frozen=True)
class Proposal:
    """A value to write into the config.

    Attributes:
        key: as in config/README.md, such as ``train.patch``.
        value: as it is written in YAML.
        reason: one short sentence.
    """

    key: str
    value: Any
    reason: str


def proposals(survey: DatasetSurvey) -> list[Proposal]:
    """Proposals for a dataset; none without usable labelled images.

    The keys are some of models.<name>.dims, .width, .depth, .head, .border_width, train.patch,
    train.distance_px, stitch.method, .grow_px and .min_size.
    """
    images = [i for i in survey.images if i.status == "ok" and i.label and spatial(i)]
    if not images:
        return []
    facts = _Facts(survey, images)
    depth, patch = facts.depth(), facts.patch()
    found = [facts.dims_proposal(), facts.width(), depth, patch]
    if survey.task == "instances":
        found += facts.separation()
    return [proposal for proposal in found if proposal is not None]


def spatial(image: SurveyedImage) -> tuple[int, ...]:
    """The image's shape along (Z) Y X."""
    pairs = zip(image.axes, image.shape, strict=False)
    sizes = {axis: n for axis, n in pairs if axis in "ZYX"}
    return tuple(sizes[axis] for axis in "ZYX" if axis in sizes)


class _Facts:
    """The numbers that the proposals depend on; lengths are in pixels of the finest axis."""

    def __init__(self, survey: DatasetSurvey, images: Sequence[SurveyedImage]) -> None:
        shapes = [spatial(image) for image in images]
        self.dims = len(shapes[0])
        shapes = [shape for shape in shapes if len(shape) == self.dims]
        self.shape = tuple(median_low(sizes) for sizes in zip(*shapes, strict=True))
        self.pixels = sum(math.prod(shape) for shape in shapes)
        # Size of a pixel per axis, in units of the finest one.
        sizes = [i.pixel_size_um for i in images if i.pixel_size_um is not None]
        known = [s for s in sizes if len(s) == self.dims and min(s) > 0]
        spacing = [median(values) for values in zip(*known, strict=True)] or [1.0] * self.dims
        self.steps = tuple(step / min(spacing) for step in spacing)
        found = survey.objects
        self.objects = found if found is not None and found.count >= MIN_OBJECTS else None

    def diameter(self, percentile: int, objects: SurveyedObjects) -> float:
        """Diameter of a disc or ball with the area of an object; percentile 0, 1, 2 = 5, 50, 95."""
        return objects.diameter[percentile] * float(math.prod(self.steps) ** (1 / self.dims))

    def dims_proposal(self) -> Proposal | None:
        if self.dims == 2:
            return None
        return Proposal("models.<name>.dims", 3, "the images are volumes (Z Y X)")

    def width(self) -> Proposal:
        width = next(width for most, width in WIDTHS if self.pixels < most)
        size = f"{self.pixels / 1e6:.2g} million pixels"
        return Proposal("models.<name>.width", width, f"{size} to learn from")

    # The network and its patch -------------------------------------------------------------------

    def network(self, depth: int) -> Architecture:
        base = PRESETS["unet-bn"]
        if not isinstance(base, Architecture):
            raise ValueError("unet-bn: not a U-Net")
        arch = replace(base, dims=self.dims, width=8, max_width=MAX_WIDTH[self.dims], depth=depth)
        return fitted(arch, self.steps)

    def _usual_depth(self) -> int:
        return USUAL_DEPTH if self.dims == 2 else DEPTH_IN_3D

    def _wanted(self) -> float:
        """Pixels that the network must see to know a whole object: twice its size."""
        return 0.0 if self.objects is None else 2 * self.diameter(2, self.objects)

    def _side(self) -> tuple[float, bool]:
        """Side of the patch, and whether the objects determine it."""
        wanted, usual = self._wanted(), USUAL_PATCH[self.dims]
        side = min(max(wanted, usual), LARGEST_PATCH[self.dims])
        return side, wanted > usual

    def _depth(self) -> int:
        """Poolings: as usual, more for large objects, fewer where an axis is short."""
        usual, (side, _) = self._usual_depth(), self._side()
        field, depth = min(self._wanted(), side), usual
        while depth < MOST_DEPTH and footprint(self.network(depth))[-1].receptive_field < field:
            depth += 1
        while depth > 1 and self._too_deep(depth):
            depth -= 1
        return depth

    def _too_deep(self, depth: int) -> bool:
        prints = footprint(self.network(depth))
        return any(n < f.grid * MIN_BOTTOM for n, f in zip(self.shape, prints, strict=True))

    def depth(self) -> Proposal | None:
        depth = self._depth()
        if depth == USUAL_DEPTH:
            return None
        if depth < USUAL_DEPTH:
            sizes = " x ".join(map(str, self.shape))
            reason = f"fewer poolings than usual ({USUAL_DEPTH}), for images of {sizes} pixels"
        else:
            reason = "more poolings than usual: a pixel must see a whole large object"
        return Proposal("models.<name>.depth", depth, reason)

    def patch(self) -> Proposal:
        side, by_objects = self._side()
        grids = [f.grid for f in footprint(self.network(self._depth()))]
        sides = []
        for n, step, grid in zip(self.shape, self.steps, grids, strict=True):
            # Not above the image, rounded to the sizes that the network takes.
            sides.append(max(grid, min(round(side / step / grid), n // grid or 1) * grid))
        # A single number is at least 8 in the config.
        value: Any = sides[0] if len(set(sides)) == 1 and sides[0] >= 8 else sides
        if by_objects:
            reason = f"twice a large object ({self._wanted() / 2:.0f} px across)"
        elif min(sides) < side and min(self.shape) < side:
            reason = f"the images have {' x '.join(map(str, self.shape))} pixels"
        else:
            reason = "large enough for whole objects, small enough for fast steps"
        if side < self._wanted():
            reason += f"; larger than {side:.0f} takes long"
        return Proposal("train.patch", value, reason)

    # Objects -------------------------------------------------------------------------------------

    def separation(self) -> list[Proposal]:
        """What the network learns to keep objects apart, and what happens to small ones."""
        touching = None if self.objects is None else self.objects.touching
        if touching is not None and touching < TOUCHING:
            reason = f"{100 * touching:.2g} % of the objects touch another one: pieces are objects"
            found = [
                Proposal("models.<name>.head", "classes", reason),
                Proposal("stitch.method", "components", reason),
            ]
        else:
            found = self._border(touching) if self.dims == 2 else self._distance(touching)
        if self.objects is not None:
            small = self.objects.area[0]
            size = max(SMALLEST_SPECK, _round_down(small * SPECK_SHARE))
            unit = "pixels" if self.dims == 2 else "voxels"
            reason = f"a third of the smallest objects ({small:.0f} {unit}); specks are dropped"
            found.append(Proposal("stitch.min_size", size, reason))
        return found

    def _border(self, touching: float | None) -> list[Proposal]:
        border, reason = THINNEST_BORDER, "thin, as gaps between objects are"
        if self.objects is not None:
            small, middle = (self.diameter(i, self.objects) for i in (0, 1))
            border = min(THICKEST_BORDER, max(border, round(middle * BORDER_SHARE)))
            border = min(border, max(1, int(small * BORDER_OF_SMALL)))
            reason = f"objects are {small:.0f} px (small) and {middle:.0f} px (median) across"
        grow = border + GROW_BEYOND
        return [
            Proposal("models.<name>.head", "border", _apart(touching)),
            Proposal("models.<name>.border_width", border, reason),
            Proposal("stitch.method", "grow", "insides grow back over their borders"),
            Proposal("stitch.grow_px", grow, f"a little more than the border ({border} px)"),
        ]

    def _distance(self, touching: float | None) -> list[Proposal]:
        found = [
            Proposal("models.<name>.head", "distance", _apart(touching)),
            Proposal("stitch.method", "watershed", "each hill of the distance is an object"),
        ]
        if self.objects is not None:
            radius = round(self.diameter(0, self.objects) / 2)
            value = min(LONGEST_DISTANCE, max(SHORTEST_DISTANCE, radius))
            found.append(Proposal("train.distance_px", value, "the radius of small objects"))
        return found


def _apart(touching: float | None) -> str:
    if touching is None:
        return "keeps touching objects apart"
    return f"keeps objects apart: {100 * touching:.2g} % touch another one"


def _round_down(value: float) -> int:
    """To one digit: 47 becomes 40."""
    if value < 1:
        return 0
    unit = 10 ** int(math.log10(value))
    return int(value // unit * unit)
