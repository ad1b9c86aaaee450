"""Decides which images train, validate and test in each fold: by group, balanced, seeded, and kept.

A group (the images of one plate, animal or film; a single image if no group is given) is never
split up. Images that have a part keep it, and new images fill the parts that are below their share,
so that the test images of a trained model stay its test images.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from unet.config.sections import SplitSection
from unet.data.records import PARTS, ImageRecord, Part, SplitRecord
from unet.data.split_checks import check_copies
from unet.errors import UserError, how_many

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Groups = Mapping[str, Sequence[str]]


def make_splits(
    records: Sequence[ImageRecord],
    settings: SplitSection,
    seed: int,
    kept: Sequence[SplitRecord] = (),
) -> list[SplitRecord]:
    """The part of each usable image in each fold.

    Args:
        records: of the manifest; those that are not ``ok`` are left out.
        settings: folds (each image is tested once), test (one held-out share), both (the share is
            tested in every fold, each other image validates once) or column (parts from the sheet);
            val is a share of the images that are not tested, unless both are given.
        seed: another seed draws other parts.
        kept: an earlier result, whose parts are kept.

    Returns:
        sorted by fold and image; in each fold the parts are disjoint and cover all images.

    Raises:
        UserError: too few images or groups, parts missing from the sheet, copies of one file in
            different parts.
    """
    usable = [record for record in records if record.status == "ok"]
    groups = groups_of(usable)
    rows = _draw_parts(usable, groups, settings, seed, _kept_parts(kept, settings.number))
    if kept and _empty_parts(rows, settings.number):
        # For example if all test images were removed.
        log.warning("the kept parts of the images leave a part empty: all are drawn again")
        rows = _draw_parts(usable, groups, settings, seed, {})
    _check(rows, usable, groups, settings)
    return sorted(rows, key=lambda row: (row.fold, row.image))


def groups_of(usable: Sequence[ImageRecord]) -> dict[str, list[str]]:
    """Image ids by group, sorted; an image without a group forms its own."""
    groups: dict[str, list[str]] = defaultdict(list)
    for record in sorted(usable, key=lambda r: r.id):
        # Ids contain no spaces, so such a group never gets the name of another one.
        groups[record.group or f" {record.id}"].append(record.id)
    return groups


def _draw_parts(
    usable: Sequence[ImageRecord],
    groups: Groups,
    settings: SplitSection,
    seed: int,
    kept_parts: Mapping[tuple[str, int], Part],
) -> list[SplitRecord]:
    fixed = settings.column is not None
    rows: list[SplitRecord] = []
    tested = [] if fixed else _test_bins(groups, settings, seed, kept_parts)
    validated = {}
    if settings.ensemble:
        validated = _val_bins(groups, tested[0], settings.number, seed, kept_parts)
    for fold in range(settings.number):
        before = {image: part for (image, at), part in kept_parts.items() if at == fold}
        if fixed:
            parts = _column_parts(usable, groups, settings, seed, before)
        elif settings.ensemble:
            parts = _ensemble_parts(tested[fold], validated, fold)
        else:
            parts = _fold_parts(groups, tested[fold], settings.val, f"{seed}/{fold}", before)
        rows += [SplitRecord(i, fold, parts[g]) for g, ids in groups.items() for i in ids]
    return rows


def _empty_parts(rows: Sequence[SplitRecord], folds: int) -> list[tuple[int, Part]]:
    there = {(row.fold, row.part) for row in rows}
    return [(k, part) for k in range(folds) for part in PARTS if (k, part) not in there]


def _kept_parts(kept: Sequence[SplitRecord], folds: int) -> dict[tuple[str, int], Part]:
    """Part by (image, fold); empty if the number of folds has changed."""
    if {row.fold for row in kept} != set(range(folds)):
        return {}
    return {(row.image, row.fold): row.part for row in kept}


def _test_bins(
    groups: Groups,
    settings: SplitSection,
    seed: int,
    kept: Mapping[tuple[str, int], Part],
) -> list[set[str]]:
    """The groups that each fold tests."""
    total = sum(map(len, groups.values()))
    if settings.folds is not None and not settings.ensemble:
        _check_enough(groups, settings.folds, f"split.folds: {settings.folds}")
        where = {image: fold for (image, fold), part in kept.items() if part == "test"}
        shares = dict.fromkeys(range(settings.folds), total / settings.folds)
        # At least two groups must be left to train and validate, even if one group is huge.
        most, before = len(groups) - 2, _majority_by_group(groups, where)
        bins = _fill_bins(groups, shares, f"{seed}/test", before, most=most)
        return [{g for g, k in bins.items() if k == fold} for fold in range(settings.folds)]
    share = 0.25 if settings.test is None else settings.test
    if settings.ensemble:
        # One group to test, and a different one in each fold to validate.
        _need(groups, settings.number + 1, f"split.folds: {settings.number} with split.test")
    else:
        _check_enough(groups, 1, f"split.test: {share:g}")
    tested = {image: part == "test" for (image, _), part in kept.items()}
    shares_of = {True: share * total, False: (1 - share) * total}
    least = (1, max(2, settings.number))
    bins_of = _fill_bins(
        groups, shares_of, f"{seed}/test", _majority_by_group(groups, tested), least
    )
    return [{g for g, test in bins_of.items() if test}] * settings.number


def _val_bins(
    groups: Groups,
    tested: set[str],
    folds: int,
    seed: int,
    kept: Mapping[tuple[str, int], Part],
) -> dict[str, int]:
    """For each group that is not tested, the fold in which it validates."""
    rest = {group: ids for group, ids in groups.items() if group not in tested}
    shares = dict.fromkeys(range(folds), sum(map(len, rest.values())) / folds)
    where = {image: fold for (image, fold), part in kept.items() if part == "val"}
    return _fill_bins(rest, shares, f"{seed}/val", _majority_by_group(rest, where))


def _ensemble_parts(tested: set[str], validated: Mapping[str, int], fold: int) -> dict[str, Part]:
    """Part of each group in a fold of an ensemble, whose networks all test the same images."""
    parts: dict[str, Part] = dict.fromkeys(tested, "test")
    for group, at in validated.items():
        parts[group] = "val" if at == fold else "train"
    return parts


def _check_enough(groups: Groups, folds: int, key: str) -> None:
    """Each fold needs a group to test, one to train and one to validate."""

    def enough(number: int) -> bool:
        tested = -(-number // folds) if folds > 1 else 1
        return number >= folds and number - tested >= 2

    _need(groups, next(number for number in range(folds + 4) if enough(number)), key)


def _need(groups: Groups, least: int, key: str) -> None:
    if len(groups) < least:
        kind = "group" if any(len(ids) > 1 for ids in groups.values()) else "image"
        raise UserError(
            f"{key}: only {how_many(len(groups), f'usable {kind}')}; at least {least} are needed "
            "to train, validate and test"
        )


def _majority_by_group(groups: Groups, by_image: Mapping[str, K]) -> dict[str, K]:
    """The most frequent value of each group's images, for groups with any value."""
    result = {}
    for group, images in groups.items():
        had = Counter(by_image[image] for image in images if image in by_image)
        if had:
            result[group] = min(had, key=lambda value: (-had[value], str(value)))
    return result


def _fill_bins(
    groups: Groups,
    shares: Mapping[K, float],
    salt: str,
    kept: Mapping[str, K],
    least: Sequence[int] = (),
    most: int | None = None,
) -> dict[str, K]:
    """Assigns each group to a bin, so that the bins get close to their shares.

    Args:
        shares: number of images that each bin should get.
        salt: determines the order in which groups of the same size are assigned.
        kept: groups that already have a bin.
        least: smallest number of groups for each bin (1 if not given).
        most: largest number of groups for a bin.
    """
    result = {group: bin_ for group, bin_ in kept.items() if bin_ in shares}
    wanted = dict(shares)
    missing = dict(zip(shares, least or (1,) * len(shares), strict=True))
    for group, bin_ in result.items():
        wanted[bin_] -= len(groups[group])
        missing[bin_] -= 1
    held = Counter(result.values())
    # Large groups first, then small ones even out the differences (longest processing time rule).
    todo = sorted((g for g in groups if g not in result), key=lambda g: _order(g, groups, salt))
    for left, group in zip(range(len(todo), 0, -1), todo, strict=True):
        short = [bin_ for bin_ in shares if missing[bin_] > 0]
        # If all remaining groups are needed to reach the minimum, they must go to the short bins.
        open_ = short if sum(missing[b] for b in short) >= left else list(shares)
        room = [b for b in open_ if most is None or held[b] < most] or open_
        bin_ = max(room, key=lambda b: wanted[b])
        result[group] = bin_
        wanted[bin_] -= len(groups[group])
        missing[bin_] -= 1
        held[bin_] += 1
    return result


def _order(group: str, groups: Groups, salt: str) -> tuple[int, str]:
    # A hash instead of a shuffle, so that the order of two groups does not depend on the others.
    return -len(groups[group]), hashlib.sha256(f"{salt}/{group}".encode()).hexdigest()


def _fold_parts(
    groups: Groups, tested: set[str], val: float, salt: str, before: Mapping[str, Part]
) -> dict[str, Part]:
    """Part of each group in one fold, given the tested groups."""
    rest = {group: ids for group, ids in groups.items() if group not in tested}
    total = sum(map(len, rest.values()))
    kept = {image: part for image, part in before.items() if part != "test"}
    shares: dict[Part, float] = {"train": (1 - val) * total, "val": val * total}
    parts = _fill_bins(rest, shares, f"{salt}/val", _majority_by_group(rest, kept))
    return {**parts, **dict.fromkeys(tested, "test")}


def _column_parts(
    usable: Sequence[ImageRecord],
    groups: Groups,
    settings: SplitSection,
    seed: int,
    before: Mapping[str, Part],
) -> dict[str, Part]:
    """Parts from the sheet; val is drawn from train if the sheet has none."""
    parts = {record.id: record.part for record in usable}
    key = f"split.column: {settings.column}"
    if without := [image for image, part in parts.items() if part not in PARTS]:
        raise UserError(
            f"{key}: {len(without)} images, such as {without[0]}, have no part in the sheet; "
            "write train, val or test for each"
        )
    given: dict[str, Part] = {}
    for group, ids in groups.items():
        found = sorted({parts[image] for image in ids})
        if len(found) > 1:
            raise UserError(f"{key}: group {group} is in {' and '.join(found)}; it must be in one")
        given[group] = next(part for part in PARTS if part == found[0])
    if lacking := [part for part in ("train", "test") if part not in given.values()]:
        raise UserError(f"{key}: no image has part {lacking[0]}; train and test are needed")
    if "val" in given.values():
        return given
    tested = {group for group, part in given.items() if part == "test"}
    if len(groups) - len(tested) < 2:
        raise UserError(f"{key}: only one group to train on; give an image part val")
    return _fold_parts(groups, tested, settings.val, f"{seed}/0", before)


def _check(
    rows: Sequence[SplitRecord],
    usable: Sequence[ImageRecord],
    groups: Groups,
    settings: SplitSection,
) -> None:
    """Checks what must be true for every split.

    Raises:
        UserError: a part is empty (large groups, or kept parts), or copies of one file in
            different parts.
        ValueError: an image is in no part, or in several; the folds of an ensemble test different
            images, or validate an image twice.
    """
    by_id = {record.id: record for record in usable}
    for fold, part in _empty_parts(rows, settings.number):
        raise UserError(
            f"split: fold {fold} has no {part} images ({len(by_id)} images in {len(groups)} "
            "groups); use fewer folds or smaller groups"
        )
    if settings.ensemble:
        times = Counter((row.image, row.part) for row in rows if row.part != "train")
        once = {(name, "val"): 1 for name in by_id if (name, "test") not in times}
        always = {(name, "test"): settings.number for name in by_id if (name, "test") in times}
        if times != {**once, **always}:
            raise ValueError("ensemble: folds test different images, or validate one image twice")
    for fold in range(settings.number):
        of_fold = [row for row in rows if row.fold == fold]
        if Counter(row.image for row in of_fold) != Counter(list(by_id)):
            raise ValueError(f"fold {fold}: an image is in no part or in several")
        parts = {row.image: row.part for row in of_fold}
        if any(len({parts[image] for image in ids}) > 1 for ids in groups.values()):
            raise ValueError(f"fold {fold}: a group is split up")
    check_copies(rows, usable)
