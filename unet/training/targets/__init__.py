"""Training targets made from labels: border weights, border classes, distances.

In: instance labels or class maps of a patch [(Z,) Y, X]. Out: arrays of the same shape.
Start with `borders.py`.

All are computed on patches, so each states how far it looks (`border_weight_margin`,
`border_class_margin`, `distance_margin`): a patch cut with that many extra pixels on every side,
and cropped afterwards, gives what the whole image would have given.
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
