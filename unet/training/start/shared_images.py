"""Test images that the start was trained on: their scores are too good. Light."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from unet.data.records import ImageRecord, SplitRecord, ids_of


def shared_images(
    records: Iterable[ImageRecord],
    tested: Collection[str],
    start_records: Iterable[ImageRecord],
    start_splits: Sequence[SplitRecord],
    start_fold: int,
) -> list[str]:
    """Ids of the test images whose files the start was trained or validated on.

    Args:
        records: of the dataset.
        tested: ids of its test images.
        start_records, start_splits: of the dataset that the start was trained on.
        start_fold: the fold of the start.
    """
    parts = (ids_of(start_splits, start_fold, part) for part in ("train", "val"))
    seen = {image for part in parts for image in part}
    files = {record.sha256 for record in start_records if record.id in seen and record.sha256}
    return sorted(r.id for r in records if r.id in tested and r.sha256 in files)


def shared_line(images: Sequence[str]) -> str:
    """The warning, one line."""
    more = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return (
        f"start: it was trained on {len(images)} of the test images ({images[0]}{more}), so their "
        "scores are too good; write one dataset for both, so that they share a split"
    )
