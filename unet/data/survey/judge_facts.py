"""Findings about what was measured: pixels, focus, objects, images that look alike, numbers of
images. The table of kinds is in `judge.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unet.config.run import Config
from unet.config.sweep import sweeps_of
from unet.data.survey.alike import MOST_PAIRS, follow_each_other
from unet.data.survey.facts import DatasetSurvey, SurveyedImage
from unet.data.survey.findings import Finding
from unet.data.survey.judge_curves import curve_findings
from unet.data.survey.measure import Measured
from unet.data.survey.understood import Understood
from unet.data.tested_units import least_units
from unet.data.validation_images import chosen_on
from unet.errors import how_many

# Share of an image's pixels that have the camera's largest value.
SATURATED = 0.01
# Blurred: a size class with at least so many images; so many times the usual deviation below the
# median of log sharpness, and at least by this factor. At edges the energy of the finest details
# falls with the third power of the width of the blur, and widths add as squares: only a defocus
# that is wider than the blur of the other images reaches the factor.
SIZE_CLASS, DEVIATIONS, BLUR_FACTOR = 8, 4.0, 2.0**1.5
# Objects with a smaller median diameter are specks, in pixels.
SPECK = 4.0
# Pixels that look like unlabelled objects, relative to those of labelled ones, in most images.
SPARSE = 1.5
# Share of objects in several pieces, or with holes, from which on it is worth a warning.
IN_PIECES, WITH_HOLES = 0.05, 0.05
# With fewer labelled images scores are chance; with fewer than SOME they are uncertain.
FEW, SOME = 10, 25
# With fewer units no test is significant at 0.05.
TESTED = least_units(0.95)
# Consecutive images look alike: correlation of details, and how far above that of all pairs.
FOLLOWING = 0.2


def measured_findings(
    survey: DatasetSurvey, found: Understood, measured: Sequence[Measured], config: Config
) -> Iterator[Finding]:
    """All of them, in the order: numbers, pixels, objects, images that look alike."""
    trained = not config.origins_for(survey.dataset)
    if trained and survey.labelled:
        yield from _numbers(survey, found)
        yield from _validated(survey, config)
        yield from curve_findings(survey, found, config)
    yield from _pixels(survey)
    yield from _blurred(survey.images)
    if survey.objects is not None:
        yield from _objects(survey, measured, config)
    yield from _alike(survey, measured, found)


def _numbers(survey: DatasetSurvey, found: Understood) -> Iterator[Finding]:
    number = survey.labelled
    groups = {record.id: record.group or f" {record.id}" for record in found.usable}
    tested = {groups[r.image] for r in found.splits if r.part == "test" and r.image in groups}
    if number < FEW:
        text = f"only {how_many(number, 'labelled image')}: scores depend on chance; label more"
        yield Finding("warn", "few_images", f"{text}, and use split: {{folds: ...}}", "split")
    elif tested and len(tested) < TESTED:
        units = how_many(len(tested), "group" if survey.groups else "image")
        text = (
            f"only {units} {'is' if len(tested) == 1 else 'are'} tested, too few to tell models "
            f"apart (at least {TESTED}); write split: {{folds: 5}}, which tests each image once"
        )
        yield Finding("warn", "few_tested", text, "split")
    elif number < SOME:
        text = f"{number} labelled images: scores are uncertain; more images help more than epochs"
        yield Finding("note", "few_images", text)


def _validated(survey: DatasetSurvey, config: Config) -> Iterator[Finding]:
    """Sweeps that choose by a single validation image, or have nothing to choose."""
    split = config.datasets[survey.dataset].split
    folds = {k: parts for k, parts in (survey.splits or {}).items() if k in split.to_run}
    on = chosen_on(folds, split.validated_by)
    for model, members in sweeps_of(config, survey.dataset).items():
        where = f"models.{model}.sweep"
        if len(members) == 1:
            text = "one combination, so there is nothing to choose; write two or more values"
            yield Finding("warn", "one_combination", text, where)
        elif on is not None and on.remedy:
            text = (
                f"{'each fold chooses' if on.alone else 'chosen'} on {on.number}; a score on a "
                f"single image says little about others: {on.remedy}"
            )
            yield Finding("warn", "few_validated", text, where)


def _pixels(survey: DatasetSurvey) -> Iterator[Finding]:
    if survey.bits is not None and survey.bits <= 14:
        kinds = {image.dtype for image in survey.images if image.largest is not None}
        stored = max(8 * np.dtype(kind).itemsize for kind in kinds)
        text = (
            f"values need {survey.bits} of {stored} bits; nothing to do, each image is normalised"
        )
        yield Finding("note", "few_bits", text)
    known = [image for image in survey.images if image.saturated is not None]
    burnt = [image for image in known if image.saturated and image.saturated > SATURATED]
    if burnt:
        most = max(image.saturated or 0 for image in burnt)
        text = (
            f"up to {most:.1%} of the pixels have the camera's largest value; details there are "
            "lost: use a shorter exposure for new images"
        )
        many = 2 * len(burnt) >= len(known)
        yield Finding("warn" if many else "note", "saturated", text, _names(burnt))
    sizes = [i.pixel_size_um for i in survey.images if i.status == "ok" and i.pixel_size_um]
    finest, coarsest = (
        min((s[-1] for s in sizes), default=1),
        max((s[-1] for s in sizes), default=1),
    )
    if coarsest > 1.1 * finest:
        text = (
            f"pixel sizes from {finest:.4g} to {coarsest:.4g} um: an object has another size in "
            "pixels from image to image; train on similar ones, or make a dataset of each"
        )
        yield Finding("note", "several_pixel_sizes", text)


def _blurred(images: Sequence[SurveyedImage]) -> Iterator[Finding]:
    classes: dict[tuple[int, ...], list[SurveyedImage]] = {}
    for image in images:
        if image.sharpness:
            classes.setdefault(image.shape[1:], []).append(image)
    blurred = [image for members in classes.values() for image in blurred_among(members)]
    if blurred:
        text = "far less sharp than other images of its size: out of focus? look, or leave it out"
        yield Finding("warn", "blurred", text, _names(blurred))


def blurred_among(images: Sequence[SurveyedImage]) -> list[SurveyedImage]:
    """Images of one size that are far less sharp than the others (robust z of log sharpness)."""
    if len(images) < SIZE_CLASS:
        return []
    logs = np.log([image.sharpness or math.nan for image in images])
    below = np.median(logs) - logs
    spread = 1.4826 * float(np.median(np.abs(below)))
    far = (below > DEVIATIONS * spread) & (below > math.log(BLUR_FACTOR))
    return [image for image, is_far in zip(images, far, strict=True) if is_far]


def _objects(
    survey: DatasetSurvey, measured: Sequence[Measured], config: Config
) -> Iterator[Finding]:
    objects = survey.objects
    if objects is None or not objects.count:
        return
    _, median, high = objects.diameter
    if median < SPECK:
        text = (
            f"half of the objects are smaller than {median:.2g} px across: specks, or labels that "
            "were scaled down?"
        )
        yield Finding("warn", "specks", text, "labels")
    yield from _patches(survey, config, high)
    if objects.in_pieces:
        share = objects.in_pieces / objects.count
        text = (
            f"{objects.in_pieces} of {objects.count} objects ({share:.1%}) have several separate "
            "pieces with one number; remove specks, and give each object its own number"
        )
        yield Finding("warn" if share > IN_PIECES else "note", "in_pieces", text, "labels")
    if objects.with_holes:
        share = objects.with_holes / objects.count
        text = (
            f"{objects.with_holes} of {objects.count} objects ({share:.1%}) have holes; results "
            "have none up to stitch.fill_holes"
        )
        yield Finding("warn" if share > WITH_HOLES else "note", "with_holes", text, "labels")
    shares = [m.unlabelled for m in measured if m.unlabelled is not None]
    sparse = [share for share in shares if share > SPARSE]
    if shares and 2 * len(sparse) > len(shares):
        text = (
            f"regions that look like the objects, with {np.median(shares):.1f} times their pixels, "
            "have no label: are all objects labelled? if not, write unlabelled: ignore "
            "and background_px: 3 (docs/data.md)"
        )
        yield Finding("warn", "sparse_labels", text, "labels")


def _patches(survey: DatasetSurvey, config: Config, largest: float) -> Iterator[Finding]:
    """Models whose patches are smaller than large objects (preset auto chooses its patch)."""
    for model in config.trained_for(survey.dataset):
        if config.models[model].preset == "auto":
            continue
        patch = config.train_for(survey.dataset, model).patch
        side = patch if isinstance(patch, int) else min(patch[-2:])
        if largest > side:
            text = (
                f"large objects ({largest:.0f} px across) do not fit into a patch of {side} px; "
                "write a larger patch, or scale the images down"
            )
            yield Finding("warn", "larger_than_patch", text, f"models.{model}: train.patch")


def _alike(
    survey: DatasetSurvey, measured: Sequence[Measured], found: Understood
) -> Iterator[Finding]:
    what: Mapping[str, str] = {
        "same": "have the same pixels",
        "near": "are nearly the same (perhaps turned or mirrored)",
        "neighbours": "continue each other at an edge: crops of one field",
    }
    many = len(survey.alike) == MOST_PAIRS
    for kind, text in what.items():
        pairs = [pair for pair in survey.alike if pair.kind == kind]
        leaks = sum(pair.leak for pair in pairs)
        if not pairs:
            continue
        others = f"{'at least ' if many else ''}{how_many(len(pairs) - 1, 'more pair')}"
        where = f"{pairs[0].one} and {pairs[0].other}"
        where += f" and {others}" if len(pairs) > 1 else ""
        if leaks:
            across = f"{leaks} of {len(pairs)} pairs lie" if len(pairs) > 1 else "they lie"
            text = (
                f"{text}; {across} in different parts of the split, so scores are too good: give "
                "the images of a pair one group (split.group, or column group of a sheet)"
            )
            yield Finding("warn", f"{kind}_across_parts", text, where)
        else:
            yield Finding("note", f"{kind}_images", text, where)
    following, usual = follow_each_other(measured)
    near = any(pair.kind == "near" for pair in survey.alike)
    grouped = {record.group for record in found.usable} - {""}
    if following > usual + FOLLOWING and not near and not grouped:
        text = (
            "images whose names follow each other look alike: sections or frames of one stack? "
            "write split.group, or scores are too good"
        )
        yield Finding("note", "sequence", text, "split.group")


def _names(images: Sequence[SurveyedImage]) -> str:
    others = len(images) - 1
    more = f" and {how_many(others, 'more image')}" if others else ""
    return f"{images[0].image}{more}"
