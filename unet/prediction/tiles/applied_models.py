"""How to prepare images for networks that were trained on another dataset."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.config.sections import NormalizeSection
from unet.data.prepare_image import Target
from unet.data.resample import SAME_PIXEL_SIZE
from unet.errors import UserError
from unet.models.model_file import ModelFile

log = logging.getLogger(__name__)


def target_of(networks: Mapping[Path, ModelFile]) -> tuple[NormalizeSection, Target]:
    """How to prepare images for an ensemble, according to its model files.

    Args:
        networks: path of each model file -> its content; at least one.

    Returns:
        The section ``prepare.normalize``, and the other properties that the images need. If the
        pixel sizes differ (because the first training image of each fold does), the first model
        file's size is used.

    Raises:
        UserError: the networks need different images, or a file lacks information.
    """
    (path, first), *others = networks.items()
    for other_path, other in others:
        for what, of_one, of_other in _comparable(first, other):
            if of_one != of_other:
                raise UserError(
                    f"{path} and {other_path}: their {what} differ ({_short(of_one)}, "
                    f"{_short(of_other)}), so they cannot predict together; apply each one alone"
                )
        if not _same_size(first.pixel_size_um, other.pixel_size_um):
            log.warning(
                "%s and %s: trained on pixels of %s and %s um; the first is used",
                *(path, other_path, first.pixel_size_um, other.pixel_size_um),
            )
    section, statistics = _normalization(path, first)
    size = first.pixel_size_um
    target = Target(
        channels=first.in_channels,
        dims=len(first.footprint),
        pixel_size_um=None if size is None else tuple(size),
        statistics=statistics,
    )
    return section, target


def _comparable(one: ModelFile, other: ModelFile) -> list[tuple[str, Any, Any]]:
    return [
        (what, getattr(one, key), getattr(other, key))
        for what, key in (
            ("tasks", "task"),
            ("classes", "class_names"),
            ("heads", "head"),
            ("channels", "in_channels"),
            ("normalisations", "normalize"),
        )
    ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _same_size(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None or len(one) != len(other):
        return one == other
    return all(abs(a / b - 1) <= SAME_PIXEL_SIZE for a, b in zip(one, other, strict=True))


def _normalization(path: Path, model: ModelFile) -> tuple[NormalizeSection, dict[str, Any] | None]:
    """The section, and its values if they belong to a whole dataset."""
    values = dict(model.normalize)
    statistics = values.pop("statistics", None)
    section = NormalizeSection.model_validate(values)
    if section.scope == "dataset" and section.method != "none" and statistics is None:
        raise UserError(
            f"{path}: its images were normalised by statistics of their whole dataset, which this "
            "file of an earlier version does not contain; remove it and run its training again (it "
            "continues from its checkpoint, which takes seconds)"
        )
    if section.scope == "image":
        statistics = None
    return section, statistics
