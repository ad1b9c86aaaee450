"""The audit stage: the labels that a model doubts, worst first.

Two passes: the first one collects suspects and how often the model agrees with the labels, the
second one looks at the suspects that are left. Memory holds blocks of some images, a fixed number
of suspects, and a small picture of each image.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unet.config.audit_settings import AuditSettings
from unet.data.blocks import Progress, ordered
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.audit import object_doubts, region_doubts
from unet.evaluation.audit.audited_images import AuditedImage, audited_images, labelled_images
from unet.evaluation.audit.doubts import LEVEL, Doubt, ranked
from unet.evaluation.audit.exchanged_labels import (
    Exchanged,
    Thumbnails,
    cells_per_side,
    exchanged,
    thumbnails,
)
from unet.evaluation.audit.object_contacts import contact
from unet.evaluation.audit.object_doubts import FINDERS, Suspect
from unet.evaluation.audit.object_overlaps import object_overlaps
from unet.evaluation.audit.object_trust import ObjectTrust, trusts_of
from unet.evaluation.audit.region_doubts import ClassTrust, Region
from unet.evaluation.audit.shifted_outlines import explained
from unet.evaluation.audit.unlabelled_parts import unlabelled_parts
from unet.prediction.stitch.segmentation import Segmentation

log = logging.getLogger(__name__)

# Suspects of a kind that are kept, as a multiple of the doubts that are wanted.
KEPT = 5
R = TypeVar("R")


@dataclass(frozen=True)
class Audit:
    """What a model says about the labels of a dataset.

    Attributes:
        doubts: ranked, the most certain one first.
        labelled: number of labelled images; ``images``: those that could be audited, of which
            ``validation`` had chosen the threshold.
        objects: labelled objects in these images; None for task semantic.
        agreement: how often the model agrees with the labels, 0 to 1.
        usual: median correlation of a label with its own prediction.
    """

    doubts: tuple[Doubt, ...]
    labelled: int
    images: int
    validation: int
    objects: int | None
    agreement: float
    usual: float

    def summary(self) -> dict[str, Any]:
        """All but the doubts, for the table's metadata."""
        return {
            "labelled": self.labelled,
            "images": self.images,
            "validation": self.validation,
            "objects": self.objects,
            "agreement": round(self.agreement, 4),
            "usual": None if math.isnan(self.usual) else round(self.usual, 4),
            "doubts": sum(doubt.confidence >= LEVEL for doubt in self.doubts),
        }


def audit_model(
    folds: Mapping[int, Path],
    prepared_path: Path,
    settings: AuditSettings,
    threads: int = 1,
    block: int | None = None,
) -> Audit:
    """Compares the labels of all images that a fold holds out with its prediction.

    Args:
        folds: number of a fold -> its segmentation store.
        prepared_path: the store with the labels.
        block: side of the blocks in pixels, None = the default; does not change any doubt.

    Raises:
        UserError: a store is missing, shapes differ, or the model's classes are not the dataset's.
    """
    prepared = Prepared(prepared_path)
    opened = {number: Segmentation(path) for number, path in folds.items()}
    images = audited_images(opened, prepared, settings.task)
    volumes = any("Z" in image.axes for image in images)
    side = cells_per_side(len(images), max(1, len(settings.class_names) - 1), volumes)
    work = Work(images, settings, max(1, threads), block, side, prepared_path.parent)
    found = objects_audit(work) if settings.task == "instances" else classes_audit(work)
    audit = replace(
        found,
        labelled=labelled_images(prepared),
        validation=sum(image.part != "test" for image in images),
    )
    log.info(
        "%d of %d labelled images audited, %d doubts of confidence %.1f or more",
        audit.images, audit.labelled, audit.summary()["doubts"], LEVEL,
    )  # fmt: skip
    return audit


@dataclass(frozen=True)
class Work:
    """The images to audit, and how.

    Attributes:
        side: cells per side of the images' thumbnails.
        folder: for temporary files.
    """

    images: Sequence[AuditedImage]
    settings: AuditSettings
    threads: int
    block: int | None
    side: int
    folder: Path

    @property
    def within(self) -> int:
        """Threads left for the blocks of an image."""
        return max(1, self.threads // max(1, len(self.images)))

    @property
    def blocks(self) -> dict[str, Any]:
        """The threads for one image, and the side of its blocks where it is given."""
        given = {} if self.block is None else {"block": self.block}
        return {"threads": self.within, **given}

    def each(self, function: Callable[[AuditedImage], R], what: str) -> Iterable[R]:
        """``function`` of each image, in threads and in their order."""
        progress = Progress(f"audit, {what}", len(self.images), len(self.images))

        def one(image: AuditedImage) -> R:
            result = function(image)
            progress.advance(1, images=1)
            return result

        return ordered(one, self.images, min(self.threads, max(1, len(self.images))))

    def suspects(self, image: AuditedImage) -> tuple[dict[str, list[Suspect]], ObjectTrust, int]:
        """The suspects of an image, how far the model agrees, and the number of labelled objects,
        those without a clear answer too."""
        pair = image.open()
        overlaps = object_overlaps(pair, **self.blocks)
        known = object_doubts.with_labels(overlaps)
        parts = unlabelled_parts(pair, known, self.folder, **self.blocks)
        found, trust = object_doubts.suspects(overlaps, parts, image.image, image.fold)
        return found, trust, int(np.count_nonzero(overlaps.labels.size))

    def small(self, image: AuditedImage) -> Thumbnails:
        task = self.settings.task
        return thumbnails(image.open(), image.fold, task, self.side, **self.blocks)


def objects_audit(work: Work) -> Audit:
    """The audit of a dataset with task instances."""
    kept: dict[str, list[Suspect]] = {kind: [] for kind in FINDERS}
    parts: dict[int, ObjectTrust] = {}
    small: list[Thumbnails] = []
    objects = 0

    def one(image: AuditedImage) -> Any:
        return work.suspects(image), work.small(image)

    for (found, trust, number), picture in work.each(one, "objects"):
        small.append(picture)
        objects += number
        parts[picture.fold] = parts.get(picture.fold, ObjectTrust()) + trust
        for kind, more in found.items():
            kept[kind] = _strongest(kept[kind] + more, work.settings.most)
    whole = exchanged(small)
    away = _taken(whole)
    # A label of another image says nothing about the model.
    for image in work.images:
        if image.image in away:
            parts[image.fold] -= work.suspects(image)[1]
    trusts = trusts_of(parts)
    suspects = [s for found in kept.values() for s in found if s.doubt.image not in away]
    doubts = [*whole.doubts, *_weighed(suspects, trusts, work)]
    everything = sum(parts.values(), ObjectTrust())
    return Audit(
        tuple(ranked(doubts, work.settings.most)), 0, len(work.images), 0,
        objects, everything.agreement, whole.usual,
    )  # fmt: skip


def _weighed(
    suspects: Iterable[Suspect], trusts: Mapping[int, ObjectTrust], work: Work
) -> Iterable[Doubt]:
    of_image: dict[str, list[Suspect]] = {}
    for suspect in suspects:
        of_image.setdefault(suspect.doubt.image, []).append(suspect)

    def one(image: AuditedImage) -> list[Doubt]:
        pair, found = image.open(), list[Doubt]()
        for suspect in of_image[image.image]:
            doubt = suspect.doubt
            confidence = object_doubts.confidence(suspect, trusts[doubt.fold])
            if doubt.kind == "shifted" and confidence > 0:
                confidence *= explained(pair, suspect)
            elif doubt.kind in ("merged", "split") and confidence > 0:
                confidence *= contact(pair, suspect)
            words = object_doubts.words(suspect)
            found.append(replace(doubt, confidence=confidence, what=words))
        return found

    images = [image for image in work.images if image.image in of_image]
    return chain.from_iterable(ordered(one, images, work.threads))


def classes_audit(work: Work) -> Audit:
    """The audit of a dataset with task semantic."""
    names = work.settings.class_names
    for image in work.images[:1]:
        if image.open().head != names:
            raise UserError(
                f"{image.segmentation.path}: predicted for the classes "
                f"{', '.join(image.open().head)}, but they are now {', '.join(names)}; run the "
                "train stage and later ones again"
            )

    def sums_of(image: AuditedImage) -> tuple[ClassTrust, Thumbnails]:
        return region_doubts.class_sums(image.open(), **work.blocks), work.small(image)

    # Each fold has networks of its own, with their own probabilities and mistakes.
    trusts = {image.fold: ClassTrust.empty(len(names)) for image in work.images}
    small = list[Thumbnails]()
    for part, picture in work.each(sums_of, "classes"):
        trusts[picture.fold] += part
        small.append(picture)
    whole = exchanged(small)
    away, kept = _taken(whole), list[Region]()
    # A label of another image says nothing about the model.
    for image in work.images:
        if image.image in away:
            trusts[image.fold] -= region_doubts.class_sums(image.open(), **work.blocks)
    thresholds = {fold: trust.thresholds for fold, trust in trusts.items()}

    def one(image: AuditedImage) -> tuple[list[Region], ClassTrust]:
        return region_doubts.regions_in_doubt(
            image.open(), image.fold, thresholds[image.fold], names, work.folder, **work.blocks
        )

    for image, (found, trust) in zip(work.images, work.each(one, "regions"), strict=True):
        if image.image not in away:
            trusts[image.fold] += trust
            kept = _strongest(kept + found, work.settings.most)
    weighed = [
        replace(
            region.doubt,
            confidence=region_doubts.region_confidence(region, trusts[region.doubt.fold]),
        )
        for region in kept
    ]
    doubts = ranked([*whole.doubts, *weighed], work.settings.most)
    everything = sum(trusts.values(), ClassTrust.empty(len(names)))
    return Audit(
        tuple(doubts), 0, len(work.images), 0, None, everything.agreement, whole.usual
    )  # fmt: skip


def _taken(whole: Exchanged) -> set[str]:
    """Images whose whole label stands out: the doubts about its parts would say nothing more."""
    return {doubt.image for doubt in whole.doubts if doubt.confidence >= LEVEL}


S = TypeVar("S", Suspect, Region)


def _strongest(found: list[S], most: int) -> list[S]:
    """Enough of the suspects with the most evidence; does not depend on the order of the images."""
    return heapq.nsmallest(KEPT * most, found, key=lambda suspect: suspect.order)
