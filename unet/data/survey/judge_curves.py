"""Findings about learning curves that cannot say what more images bring. The table of kinds is in
`judge.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from unet.config.learning_curve import curves_of
from unet.config.run import Config
from unet.data.subsets import subset_of
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.findings import Finding
from unet.data.survey.understood import Understood
from unet.data.tested_units import least_units
from unet.errors import how_many

# Points of a curve: fewer don't show how it bends.
LEAST_POINTS = 3


def curve_findings(survey: DatasetSurvey, found: Understood, config: Config) -> Iterator[Finding]:
    """What makes "can't tell" certain: too few points, or too few test images."""
    for model, curve in curves_of(config, survey.dataset).items():
        where = f"models.{model}.learning_curve"
        if text := _one_share(curve):
            yield Finding("warn", "one_share", text, where)
        if text := _same_shares(curve, survey.dataset, found, config):
            yield Finding("warn", "same_shares", text, where)
        if text := _few_tested(survey.dataset, found, config):
            yield Finding("warn", "few_for_curve", text, where)


def _one_share(curve: Mapping[str, float]) -> str:
    if len(curve) != 2:
        return ""
    share = min(curve.values())
    more = f"[{share / 2:g}, {share:g}]" if share >= 0.02 else f"[{share:g}, 0.5]"
    return (
        "one share and all images are two points, which don't show what more images bring (three "
        f"are needed); write such as {more}"
    )


def _same_shares(
    curve: Mapping[str, float], dataset: str, found: Understood, config: Config
) -> str:
    """Shares that take the same images in every fold, because there are few images or groups."""
    groups = {record.id: record.group for record in found.usable}
    folds = {fold: _part(found, fold, "train") for fold in config.datasets[dataset].split.to_run}
    folds = {fold: images for fold, images in folds.items() if images}
    if not folds:
        return ""
    alike: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for share in curve.values():
        taken = (subset_of(ids, groups, share, config.seed, fold) for fold, ids in folds.items())
        alike[tuple(map(len, taken))].append(share)  # nested: as many images are the same images
    same = [(counts, shares) for counts, shares in alike.items() if len(shares) > 1]
    if not same:
        return ""
    (first, *_), shares = same[0]
    total = len(next(iter(folds.values())))
    listed = f"{', '.join(f'{share:g}' for share in shares[:-1])} and {shares[-1]:g}"
    what = "image" if first == 1 else f"{first} images"
    text = f"the shares {listed} are the same {what} of {how_many(total, 'training image')}"
    if len(alike) < LEAST_POINTS <= len(curve):
        text += f", so the curve has {how_many(len(alike), 'point')} (three are needed)"
    return f"{text}; write fewer or larger shares, or label more images"


def _few_tested(dataset: str, found: Understood, config: Config) -> str:
    split = config.datasets[dataset].split
    tested = {image for fold in split.to_run for image in _part(found, fold, "test")}
    named = {r.id: r.group for r in found.usable if r.id in tested}
    # As in the report: groups only if there are several.
    grouped = len(set(named.values()) - {""}) >= 2
    units = len({(grouped and group) or f" {image}" for image, group in named.items()})
    least = least_units(config.report.confidence)
    if not 0 < units < least:
        return ""
    kind = "group" if grouped else "image"
    text = (
        f"only {how_many(units, kind)} {'is' if units == 1 else 'are'} tested, so the answer will "
        f'be "can\'t tell" (at least {least} are needed)'
    )
    every = len({(grouped and r.group) or f" {r.id}" for r in found.usable if r.label})
    if every < least:
        return f"{text}; label more images"
    if split.run is not None:
        return f"{text}; name more folds in split.run"
    return f"{text}; write split: {{folds: {min(5, every)}}}, which tests each image once"


def _part(found: Understood, fold: int, part: str) -> list[str]:
    """Ids of the images of a part in one fold."""
    return [row.image for row in found.splits if row.fold == fold and row.part == part]
