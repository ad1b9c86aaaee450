"""Compares the pixel size of images with that of the network that will predict them.

A pixel size with a wrong unit (mm for um) turns a small image into gigabytes, or a large one into a
few pixels. So a large factor gives a warning, and a very large one quarantines the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unet.data.dataset_warnings import grouped
from unet.data.prepare_image import Target
from unet.data.records import ImageRecord

# Factors along any axis, up or down, at which an image gets a warning, and is quarantined.
# Objectives of one laboratory range from 4 x to 63 x at most; beyond that a network finds nothing.
LARGE, ABSURD = 4.0, 32.0


def scale_factor(record: ImageRecord, target: Target) -> float:
    """The largest factor, >= 1, between the pixel sizes; 1 if one of them is unknown."""
    has, wants = record.pixel_size_um, target.pixel_size_um
    if has is None or wants is None or len(has) != len(wants):
        return 1.0
    return max(max(a / b, b / a) for a, b in zip(has, wants, strict=True))


def quarantine_far(records: Sequence[ImageRecord], target: Target | None) -> list[ImageRecord]:
    """The records; those with an absurd factor are quarantined, with advice what to write."""
    if target is None:
        return list(records)
    return [
        replace(record, status="quarantined", reason=_absurd(record, target))
        if record.status == "ok" and scale_factor(record, target) >= ABSURD
        else record
        for record in records
    ]


def _absurd(record: ImageRecord, target: Target) -> str:
    found = target.resampling(record)
    sizes = (
        ""
        if found is None
        else f" ({sizes_text(found.shape)} px of {sizes_text(record.shape[1:])})"
    )
    return (
        f"{_compared(record, target)}{sizes}; write the correct one as pixel_size_um (unet "
        "predict: --pixel-size)"
    )


def _compared(record: ImageRecord, target: Target) -> str:
    has, wants = sizes_text(record.pixel_size_um or ()), sizes_text(target.pixel_size_um or ())
    largest = scale_factor(record, target)
    short = f"{largest:.3g}" if largest < 1000 else f"{largest:.0f}"
    return f"pixel size {has} um, the model's {wants} um: a factor of {short}"


def sizes_text(values: Iterable[float]) -> str:
    """Such as ``0.5 x 0.5``."""
    return " x ".join(f"{value:.6g}" for value in values)


def scale_warnings(
    before: Sequence[ImageRecord], after: Sequence[ImageRecord], target: Target
) -> list[str]:
    """Warnings about images that were quarantined, or are far from the model's pixel size.

    Args:
        before, after: the records before and after :func:`quarantine_far`.
    """
    lines = []
    for old, new in zip(before, after, strict=True):
        if old.status != new.status:
            lines.append((new.image, f"left out: {new.reason}"))
        elif new.status == "ok" and scale_factor(new, target) >= LARGE:
            lines.append((new.image, f"{_compared(new, target)}; is that correct?"))
    return grouped(lines)
