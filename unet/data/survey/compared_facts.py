"""Looks at the masks of other tools before a run: which images have one, and whether it fits.

Of most masks only names and headers are read. A few that are not large are read as a whole: whether
their pixels can be decoded and scored, and whether they are copies of the labels or of another
tool's masks. ``_seg.npy``, GeoJSON and ROI files have no headers, which is why of many masks only
some are opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unet.config.dataset_sections import DatasetSection
from unet.config.run import Config
from unet.data.compared_masks import find_compared, label_of, match_masks, names_of
from unet.data.mask_contents import (
    LOOKED_AT,
    LookedAt,
    copies_of,
    label_content,
    masks_of,
    shared_values,
)
from unet.data.records import ImageRecord, SplitRecord
from unet.data.survey.facts import SurveyedMasks
from unet.data.survey.findings import Finding
from unet.data.survey.measure import spread
from unet.errors import UserError, how_many
from unet.io.mask_files import open_mask

# Number of names in a finding.
_NAMED = 5


def compared_masks(
    config: Config,
    dataset: str,
    root: Path,
    records: Sequence[ImageRecord],
    splits: Sequence[SplitRecord],
    sampled: int,
) -> tuple[list[SurveyedMasks], list[Finding]]:
    """What is known about the masks of each tool in ``compare``, and what looks wrong.

    Args:
        root: folder of the records' paths.
        records: all images; those that cannot be used are not scored.
        splits: empty if all images are predicted only, or if the dataset cannot be split.
        sampled: largest number of masks of a tool that are opened.
    """
    usable = sorted((r for r in records if r.status == "ok"), key=lambda record: record.id)
    tested = _tested(config, dataset, usable, splits)
    masks: list[SurveyedMasks] = []
    contents: dict[str, Mapping[str, str]] = {}
    findings: list[Finding] = []
    for tool in config.datasets[dataset].compare:
        key = f"datasets.{dataset}.compare.{tool}"
        try:
            found, more, own = _of_tool(config, dataset, tool, root, records, tested, sampled)
            more += _same_as(own, contents, dataset)
            contents[tool] = own
        except UserError as error:
            found = SurveyedMasks(tool, tested=len(tested))
            more = [Finding("stop", "no_masks", str(error).removeprefix(f"{key}: "))]
        masks.append(found)
        findings += [replace(each, where=key) for each in more]
    return masks, findings


def _tested(
    config: Config, dataset: str, usable: Sequence[ImageRecord], splits: Sequence[SplitRecord]
) -> list[ImageRecord]:
    """The images that are scored: those that a fold of the run tests, or all with a label."""
    labelled = [record for record in usable if record.label]
    folds = config.datasets[dataset].split.to_run
    ids = {row.image for row in splits if row.part == "test" and row.fold in folds}
    return [record for record in labelled if record.id in ids] if ids else labelled


def _of_tool(
    config: Config,
    dataset: str,
    tool: str,
    root: Path,
    records: Sequence[ImageRecord],
    tested: Sequence[ImageRecord],
    sampled: int,
) -> tuple[SurveyedMasks, list[Finding], Mapping[str, str]]:
    """The facts and findings of one tool, and what some of its masks hold: image -> content.

    Raises:
        UserError: the folder is missing, or holds no mask of these images.
    """
    data, key = config.datasets[dataset], f"datasets.{dataset}.compare.{tool}"
    below = Path(os.path.expandvars(config.data_root)).expanduser()
    files = find_compared(data.compare[tool], below, key, label_of(data.task))
    lines: list[str] = []
    wanted = {record.id for record in tested}
    pairs = match_masks(files, names_of(records, root), wanted, key, lines.append)
    there = [record for record in tested if record.id in pairs]
    missing = sorted(wanted - pairs.keys())
    opened = spread(there, sampled)
    unfit = dict(_unfit(opened, pairs, data))
    seen = masks_of([r for r in spread(there, LOOKED_AT) if r.id not in unfit], pairs, data)
    unfit |= seen.unfit
    found = SurveyedMasks(
        tool,
        files=len(files.files),
        kinds=tuple(sorted({_ending(pairs[record.id]) for record in there})),
        tested=len(tested),
        found=len(there),
        missing=tuple(missing),
        opened=len(opened),
        unfit=tuple(unfit),
    )
    labels = {r.id: label_content(r, root, data) for r in there if r.id in seen.masks}
    doubts = _contents(seen, labels, data.task)
    return found, [*_findings(found, unfit, lines), *doubts], seen.contents


def _contents(seen: LookedAt, labels: Mapping[str, str], task: str) -> Iterator[Finding]:
    """Masks that are the labels, or that are only foreground."""
    filled = [image for image, content in seen.contents.items() if content]
    looked = f"({how_many(len(filled), 'mask')} looked at)"
    if copies_of(seen.contents, labels):
        text = (
            f"the masks are exactly the labels {looked}, so a perfect score says nothing; give the "
            "folder with the masks of the tool"
        )
        yield Finding("warn", "masks_are_labels", text)
    elif task == "instances" and (values := shared_values(seen.masks.values(), None)):
        listed = ", ".join(map(str, values))
        text = (
            f"the masks hold only the value{'s' if len(values) > 1 else ''} {listed} besides 0 in "
            f"many separate pieces {looked}, so all of them count as one object; number the "
            "objects (skimage.measure.label)"
        )
        yield Finding("warn", "masks_binary", text)


def _same_as(
    own: Mapping[str, str], others: Mapping[str, Mapping[str, str]], dataset: str
) -> list[Finding]:
    """Whether the masks are those of another tool, of which the first is named."""
    for tool, contents in others.items():
        both = [image for image in own if image in contents]
        same = all(own[image] == contents[image] for image in both)
        if same and any(own[image] for image in both):
            text = (
                f"the masks are exactly those of datasets.{dataset}.compare.{tool} "
                f"({how_many(len(both), 'mask')} looked at): is it the right folder?"
            )
            return [Finding("warn", "masks_same", text)]
    return []


def _unfit(
    records: Sequence[ImageRecord], pairs: Mapping[str, Path], data: DatasetSection
) -> Iterator[tuple[str, str]]:
    """Id and reason of each image whose mask cannot be scored."""
    several = list(pairs.values())
    for record in records:
        path = pairs[record.id]
        # The mask of a stack of images is a stack; otherwise each image has a file of its own.
        page = record.page if several.count(path) > 1 else None
        try:
            open_mask(path, record.shape[1:], axes=data.axes, page=page, classes=data.classes)
        except UserError as error:
            yield record.id, str(error)


def _findings(
    found: SurveyedMasks, unfit: Mapping[str, str], lines: Sequence[str]
) -> Iterator[Finding]:
    if unfit:
        number, first = how_many(len(unfit), "mask"), next(iter(unfit.values()))
        if len(unfit) == found.found:
            text = f"none of {number} can be scored; the first: {first}"
            yield Finding("stop", "no_masks", text)
        else:
            of = "" if found.opened == found.found else f" of {found.opened} looked at"
            yield Finding(
                "warn", "masks_unfit", f"{number}{of} cannot be scored; the first: {first}"
            )
    if found.missing:
        names = ", ".join(found.missing[:_NAMED])
        more = ", ..." if len(found.missing) > _NAMED else ""
        text = (
            f"no mask for {len(found.missing)} of {how_many(found.tested, 'test image')}, which "
            f"will not be scored ({names}{more})"
        )
        yield Finding("warn", "masks_missing", text)
    for line in lines:
        yield Finding("warn", "masks_unclear", line)


def _ending(path: Path) -> str:
    # A label inside an OME-Zarr image has no ending.
    return path.suffix.lower() or ".zarr"
