"""Computes training targets from labels: border weights, border classes, distances.

In: instance labels or class maps of a patch [(Z,) Y, X]. Out: arrays of the same shape.
Start with `borders.py`.

Targets are computed on patches, so each has a margin (`border_weight_margin`,
`border_class_margin`, `distance_margin`): if a patch is cut with this many extra pixels on every
side, and its targets are cropped, they equal those of the whole image.
"""

from __future__ import annotations

from unet.training.targets.borders import (
    BACKGROUND,
    BORDER,
    BORDER_TOLERANCE,
    INSIDE,
    balanced_class_weights,
    border_class_margin,
    border_classes,
    border_weight_map,
    border_weight_margin,
)
from unet.training.targets.distances import distance_margin, object_distance, signed_distances

__all__ = [
    "BACKGROUND",
    "BORDER",
    "BORDER_TOLERANCE",
    "INSIDE",
    "balanced_class_weights",
    "border_class_margin",
    "border_classes",
    "border_weight_map",
    "border_weight_margin",
    "distance_margin",
    "object_distance",
    "signed_distances",
]
