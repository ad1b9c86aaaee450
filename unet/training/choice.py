"""The choice of a sweep: the model with the best validation score takes the place of ``<name>``.

Test images play no part: the chosen model is the only one that is ever tested. If all folds test
the same images, the mean over the folds decides, once for all folds. In a cross-validation a
validation image of one fold is a test image of another, so each fold chooses by its own score
(nested cross-validation; Cawley & Talbot 2010, https://jmlr.org/papers/v11/cawley10a.html).
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet.errors import UserError
from unet.files import replacing
from unet.tables import csv_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model of a sweep.

    Attributes:
        name: of the model.
        values: what it tries: a value by dotted key.
        scores: the best validation score of each training that decides, by fold; NaN: none.
        at_start: the folds whose training did not improve on its start, and kept its weights.
    """

    name: str
    values: Mapping[str, Any]
    scores: Mapping[int, float]
    at_start: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the folds; NaN if a fold has no score, since the others may be easier."""
        found = list(self.scores.values())
        return sum(found) / len(found) if found else math.nan


def best_score(history: Path) -> float:
    """The validation score of the weights that a training kept: the largest of its history.

    It is the mean IoU over the classes on whole validation images (:mod:`unet.training.validation`)
    whatever the loss, the patch or the network, so it can be compared between them.

    Raises:
        UserError: the table is missing or damaged.
    """
    return max(_scores(history).values(), default=math.nan)


def kept_start(history: Path) -> bool:
    """Whether a training kept the weights that it began with: no later epoch has a better score
    than epoch 0. Only a training with ``train.from`` has that epoch.

    Raises:
        UserError: the table is missing or damaged.
    """
    scores = _scores(history)
    return 0 in scores and scores[0] == max(scores.values())


def _scores(history: Path) -> dict[int, float]:
    """Epoch -> validation score; epochs without a score are left out."""
    try:
        rows = csv_rows(history.read_text(encoding="utf-8"))
        found = {int(row["epoch"]): float(row["val_score"] or math.nan) for row in rows}
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{history}: cannot be read ({reason}); run the train stage") from None
    except (KeyError, ValueError):
        raise UserError(f"{history}: damaged; remove it and run again") from None
    return {epoch: score for epoch, score in found.items() if not math.isnan(score)}


def none_improved(candidates: Sequence[Candidate]) -> str:
    """What it means for the choice that no training improved on its start; "" if one did."""
    if not _at_start(candidates):
        return ""
    no = "no model of the sweep improved on its start: all have"
    if nothing_chosen(candidates):
        return f"{no} the weights of the start, so nothing was chosen"
    return f"{no} the weights that they began with, so the choice is among starts, not trainings"


def nothing_chosen(candidates: Sequence[Candidate]) -> bool:
    """Whether all candidates have the same weights, those of their start."""
    # Settings of the training alone: all began with the same weights.
    alike = all(key.startswith("train.") for each in candidates for key in each.values)
    return alike and _at_start(candidates)


def _at_start(candidates: Sequence[Candidate]) -> bool:
    return bool(candidates) and all(each.scores.keys() <= {*each.at_start} for each in candidates)


def chosen(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the largest mean score; the first of them if several are equal. Those
    without a score in each fold are left out.

    Raises:
        UserError: none has a score.
    """
    scored = [each for each in candidates if not math.isnan(each.mean)]
    if not scored:
        folds = {fold for each in candidates for fold in each.scores}
        where = f"fold {folds.pop()}" if len(folds) == 1 else "each fold"
        raise UserError(
            f"sweep: no model has a validation score in {where}, so none can be chosen; leave "
            "images for validation (split.val), with labelled objects in them"
        )
    return max(scored, key=lambda each: each.mean)  # the first of equal ones


def as_json(candidates: Sequence[Candidate], best: Candidate) -> dict[str, Any]:
    """The content of ``choice.json``; NaN as null."""

    def known(score: float) -> float | None:
        return None if math.isnan(score) else score

    remark = none_improved(candidates)
    return {
        "chosen": best.name,
        **({"remark": remark} if remark else {}),
        "members": [
            {
                "model": each.name,
                "values": dict(each.values),
                "validation_score": known(each.mean),
                "folds": {str(fold): known(score) for fold, score in each.scores.items()},
                **({"kept_start": list(each.at_start)} if each.at_start else {}),
            }
            for each in candidates
        ],
    }


def from_json(content: Mapping[str, Any]) -> tuple[list[Candidate], str]:
    """What :func:`as_json` wrote: the candidates, and the name of the chosen one.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is something else.
    """
    found = [
        Candidate(
            each["model"],
            each["values"],
            {
                int(fold): math.nan if score is None else float(score)
                for fold, score in each["folds"].items()
            },
            tuple(map(int, each.get("kept_start", ()))),
        )
        for each in content["members"]
    ]
    return found, str(content["chosen"])


def copy_training(source: Path, target: Path, needed: Sequence[str], more: Sequence[str]) -> None:
    """Copies the results of a training into another model's folder.

    Copies, not links: Snakemake changes the time of a job's outputs, and with links that would
    also be the time of the candidates' files.

    Args:
        needed: names of files.
        more: names of files that not every training writes; where the source has none, the
            target's is removed.

    Raises:
        UserError: a needed file is missing.
    """
    for name in needed:
        if not (source / name).is_file():
            raise UserError(f"{source / name}: missing; run the train stage first")
    for name in (*needed, *more):
        if not (source / name).is_file():
            (target / name).unlink(missing_ok=True)
            continue
        with replacing(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
