"""Surveys a dataset: reads its files as the first stages would, measures a sample, and judges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from unet.config.run import Config
from unet.data.raw_files import RawSource
from unet.data.records import PARTS, ImageRecord, SplitRecord
from unet.data.splits import groups_of
from unet.data.survey.alike import alike_images
from unet.data.survey.compared_facts import compared_masks
from unet.data.survey.facts import (
    DatasetSurvey,
    SurveyedClass,
    SurveyedImage,
    SurveyedObjects,
)
from unet.data.survey.findings import worst_first
from unet.data.survey.fingerprints import perceptual_hash
from unet.data.survey.image_facts import REGION_PIXELS, PixelFacts, bits_of, saturated_share
from unet.data.survey.judge import findings_of
from unet.data.survey.measure import Measured, measured, spread
from unet.data.survey.object_facts import summary
from unet.data.survey.understood import Understood, understand

__all__ = ["survey_dataset"]


def survey_dataset(
    config: Config,
    dataset: str,
    source: RawSource,
    *,
    threads: int,
    records: Sequence[ImageRecord] | None = None,
    splits: Sequence[SplitRecord] | None = None,
    sampled: int = 100,
) -> DatasetSurvey:
    """What a dataset's files hold, and what looks wrong. Writes nothing.

    Args:
        source: the raw files, with the same values as for the manifest stage.
        threads: images read at the same time.
        records, splits: of a finished manifest and split; without them, they are made in memory.
        sampled: largest number of images whose pixels are measured, and of masks of another tool
            that are opened.

    Returns:
        facts and findings; a mistake of the user is a finding of level stop, never an error.
    """
    data = config.datasets[dataset]
    found = understand(config, dataset, source, threads, records, splits)
    usable = sorted(found.usable, key=lambda record: record.id)
    sample = measured(
        spread(usable, sampled),
        source,
        data,
        threads=threads,
        region_pixels=REGION_PIXELS,
        memory=int(1e9 * config.memory_gb),
    )
    masks, doubts = compared_masks(
        config, dataset, source.root, found.records, found.splits, sampled
    )
    middles = Counter(member.middle for member in sample if member.middle)
    survey = DatasetSurvey(
        dataset=dataset,
        task=data.task,
        label_kind="classes" if data.task == "semantic" else data.label_kind,
        layout=data.layout,
        images=_images(found.records, sample),
        labelled=sum(bool(record.label) for record in found.usable),
        measured=len(sample),
        images_alone=tuple(r.image for r in found.records if source.labelled and not r.label),
        labels_alone=found.labels_alone,
        unread=found.unread,
        bits=_bits(sample),
        classes=_classes(found, sample, data.classes or {}),
        objects=_objects(found, sample) if data.task == "instances" else None,
        splits=_parts(found.splits),
        groups=_groups(usable),
        alike=alike_images(sample, usable, found.splits),
        middles=sum(middles.values()),
        middle=middles.most_common(1)[0][0] if middles else (),
        compared=tuple(masks),
    )
    findings = [*findings_of(survey, found, sample, config), *doubts]
    return replace(survey, findings=tuple(worst_first(findings)))


def _images(
    records: Sequence[ImageRecord], sample: Sequence[Measured]
) -> tuple[SurveyedImage, ...]:
    facts = {member.record.id: member.pixels for member in sample}
    largest = _largest(sample)
    ordered = sorted(records, key=lambda record: record.id)
    return tuple(_image(r, facts.get(r.id), largest.get(r.dtype, 0.0)) for r in ordered)


def _image(record: ImageRecord, facts: PixelFacts | None, largest: float) -> SurveyedImage:
    names = SurveyedImage.__dataclass_fields__.keys() & ImageRecord.__dataclass_fields__.keys()
    image = SurveyedImage(**{name: getattr(record, name) for name in names})
    if record.class_shares:
        foreground = sum(list(record.class_shares.values())[1:])
        image = replace(image, foreground=foreground)
    if facts is None:
        return image
    return replace(
        image,
        low=facts.low,
        median=facts.median,
        high=facts.high,
        largest=facts.largest,
        saturated=saturated_share(facts.at_limit, largest),
        sharpness=facts.sharpness,
        hash=perceptual_hash(facts.thumbnail),
    )


def _largest(sample: Sequence[Measured]) -> dict[str, float]:
    """Type of pixels -> the largest value in all images of that type."""
    found: dict[str, float] = {}
    for member in sample:
        name = member.record.dtype
        found[name] = max(found.get(name, 0.0), member.pixels.largest)
    return found


def _bits(sample: Sequence[Measured]) -> int | None:
    """Bits that the values of the widest type need."""
    largest = _largest(sample)
    if not largest:
        return None
    widest = max(largest, key=lambda name: np.dtype(name).itemsize)
    return bits_of(largest[widest], widest)


def _classes(
    found: Understood, sample: Sequence[Measured], values: Mapping[str, int]
) -> tuple[SurveyedClass, ...]:
    labelled = [
        (record.class_shares, math.prod(record.shape[1:]))
        for record in found.usable
        if record.class_shares
    ]
    if not labelled:
        return ()
    values = values or {"background": 0}
    pixels_of_all = sum(pixels for _, pixels in labelled)
    rows = []
    for name in labelled[0][0]:
        sums = [member.intensity.get(name, (0.0, 0)) for member in sample]
        number = sum(pixels for _, pixels in sums)
        rows.append(
            SurveyedClass(
                name,
                values.get(name),
                sum(shares[name] * pixels for shares, pixels in labelled) / max(1, pixels_of_all),
                sum(value for value, _ in sums) / number if number else None,
                sum(shares[name] > 0 for shares, _ in labelled),
            )
        )
    return tuple(rows)


def _objects(found: Understood, sample: Sequence[Measured]) -> SurveyedObjects | None:
    labels = [member.objects for member in sample if member.objects is not None]
    if not labels:
        return None
    empty = [r.id for r in found.usable if r.class_shares and not r.class_shares.get("foreground")]
    return summary(labels, len(sample[0].record.shape) - 1, empty)


def _parts(splits: Sequence[SplitRecord]) -> dict[int, dict[str, int]]:
    count = Counter((row.fold, row.part) for row in splits)
    folds = sorted({row.fold for row in splits})
    return {fold: {part: count[fold, part] for part in PARTS} for fold in folds}


def _groups(usable: Sequence[ImageRecord]) -> int:
    return len(groups_of(usable)) if any(record.group for record in usable) else 0
