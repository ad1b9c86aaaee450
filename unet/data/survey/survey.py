"""Surveys a dataset: reads its files as the first stages would, measures a sample, and judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unet.config.run import Config
from unet.data.raw_files import RawSource
from unet.data.records import PARTS, ImageRecord, SplitRecord
from unet.data.splits import groups_of
from unet.data.survey.facts import DatasetSurvey, SurveyedClass, SurveyedImage
from unet.data.survey.findings import worst_first
from unet.data.survey.judge import findings_of
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
        sampled: largest number of images whose pixels are measured.

    Returns:
        facts and findings; a mistake of the user is a finding of level stop, never an error.
    """
    data = config.datasets[dataset]
    found = understand(config, dataset, source, threads, records, splits)
    survey = DatasetSurvey(
        dataset=dataset,
        task=data.task,
        label_kind="classes" if data.task == "semantic" else data.label_kind,
        layout=data.layout,
        images=tuple(_image(record) for record in sorted(found.records, key=lambda r: r.id)),
        labelled=sum(bool(record.label) for record in found.usable),
        measured=0,
        images_alone=tuple(r.image for r in found.records if source.labelled and not r.label),
        labels_alone=found.labels_alone,
        unread=found.unread,
        classes=_classes(found, data.classes or {}),
        splits=_parts(found.splits),
        groups=_groups(found.usable),
    )
    findings = findings_of(survey, found, trained=not config.origins_for(dataset))
    return replace(survey, findings=tuple(worst_first(findings)))


def _image(record: ImageRecord) -> SurveyedImage:
    names = SurveyedImage.__dataclass_fields__.keys() & ImageRecord.__dataclass_fields__.keys()
    foreground = None
    if record.class_shares:
        foreground = sum(list(record.class_shares.values())[1:])
    return SurveyedImage(**{name: getattr(record, name) for name in names}, foreground=foreground)


def _classes(found: Understood, values: Mapping[str, int]) -> tuple[SurveyedClass, ...]:
    labelled = [record.class_shares for record in found.usable if record.class_shares]
    if not labelled:
        return ()
    values = values or {"background": 0}
    return tuple(
        SurveyedClass(
            name,
            values.get(name),
            sum(shares[name] for shares in labelled) / len(labelled),
            None,
            sum(shares[name] > 0 for shares in labelled),
        )
        for name in labelled[0]
    )


def _parts(splits: Sequence[SplitRecord]) -> dict[int, dict[str, int]]:
    count = Counter((row.fold, row.part) for row in splits)
    folds = sorted({row.fold for row in splits})
    return {fold: {part: count[fold, part] for part in PARTS} for fold in folds}


def _groups(usable: Sequence[ImageRecord]) -> int:
    return len(groups_of(usable)) if any(record.group for record in usable) else 0
