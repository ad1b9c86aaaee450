"""Opens the segmentations of a model's tested folds with their labels, and checks them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from unet.config.sections import EvaluateSection
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.fold import Fold
from unet.prediction.stitch.segmentation import Segmentation

log = logging.getLogger(__name__)


def open_folds(
    folds: Mapping[int, Path],
    prepared_path: Path,
    task: str,
    class_names: Sequence[str],
    section: EvaluateSection,
    applied: bool,
    threads: int = 1,
    block: int | None = None,
    thresholds: Mapping[tuple[str, str], float] | None = None,
) -> list[Fold]:
    """Opens each fold, ordered by number, and checks that its images can be compared.

    Args:
        folds: number of a fold -> its segmentation store.
        prepared_path: the store with the labels.
        applied: whether images without labels are allowed; they are left out.
        threads, block, thresholds: see :class:`unet.evaluation.fold.Fold`.

    Raises:
        UserError: a store is missing, a test image has no labels, shapes or classes differ.
    """
    prepared, opened = Prepared(prepared_path), []
    for number, path in sorted(folds.items()):
        segmentation = Segmentation(path)
        ids = segmentation.ids()
        if applied:
            ids = _labelled(prepared, ids)
        parts = {image: segmentation.attrs(image)["part"] for image in ids}
        fold = Fold(
            number, prepared, segmentation, parts, section, task, tuple(class_names),
            max(1, threads), block, thresholds or {},
        )  # fmt: skip
        # Check all folds first: an error in the last one shows in seconds, not after hours.
        _check(fold, path)
        opened.append(fold)
    return opened


def _labelled(prepared: Prepared, ids: list[str]) -> list[str]:
    found = [image for image in ids if prepared.classes(image) is not None]
    log.info("%d of %d images have labels and are scored", len(found), len(ids))
    return found


def _check(fold: Fold, path: Path) -> None:
    if not fold.ids("test"):
        log.warning("%s: no test images; %s adds nothing", path, fold.name)
    for image in fold.parts:
        pair = fold.open(image)
        if fold.task == "semantic" and pair.head != fold.class_names:
            raise UserError(
                f"{path / image}: predicted for the classes {', '.join(pair.head)}, but they are "
                f"now {', '.join(fold.class_names)}; run the train stage and later ones again"
            )
