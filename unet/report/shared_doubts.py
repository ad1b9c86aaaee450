"""The doubts of all models about a dataset's labels, those that several models share first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unet.errors import UserError
from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubts import LEVEL, Doubt, read_doubts
from unet.files import read_json
from unet.paths import Paths
from unet.provenance import sidecar

# Overlap (IoU) of the boxes of two models' doubts from which on they are the same doubt.
SAME_PLACE = 0.3


@dataclass(frozen=True)
class SharedDoubt:
    """A doubt of one or more models.

    Attributes:
        doubt: that of the model that is most certain.
        models: the most certain one first; ``ranks``: the rank of the doubt in the table of each.
        confidence: mean over all models; 0 for a model that does not doubt the place. The models
            learned from the same labels, so their agreement is no independent evidence.
    """

    doubt: Doubt
    models: tuple[str, ...]
    ranks: tuple[int, ...]
    confidence: float


def read_audits(
    paths: Paths, dataset: str, models: Sequence[str]
) -> list[tuple[AuditSummary, list[Doubt]]]:
    """The audits of the models that have one: what each looked at, and its doubts.

    Raises:
        UserError: a table is damaged.
    """
    tables = {model: paths.audit(dataset, model) for model in models}
    return [
        (_summary(sidecar(table), model), read_doubts(table))
        for model, table in tables.items()
        if table.is_file()
    ]


def _summary(path: Path, model: str) -> AuditSummary:
    try:
        values: dict[str, Any] = read_json(path)["audit"]
        return AuditSummary(model, **values)
    except (OSError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); run the audit stage again") from None


def shared_doubts(doubts: Mapping[str, Iterable[Doubt]], level: float = LEVEL) -> list[SharedDoubt]:
    """All doubts of a confidence of at least ``level`` for a model, by the mean of all models.

    Doubts of different models are the same if they are of the same kind and at the same place of
    the same image. Equal confidences keep the order of the tables, so that the doubts of a single
    model have the ranks of its table.

    Args:
        doubts: of each model, in the order of its table.
    """
    every = sorted(
        (
            _Ranked(doubt, model, rank)
            for model, found in doubts.items()
            for rank, doubt in enumerate(found, start=1)
        ),
        key=lambda one: (-one.doubt.confidence, one.rank, one.model),
    )
    by_image: dict[tuple[str, str], list[list[_Ranked]]] = {}
    for one in every:
        groups = by_image.setdefault((one.doubt.image, one.doubt.kind), [])
        for group in groups:
            known = {member.model for member in group}
            if one.model not in known and same_place(one.doubt, group[0].doubt):
                group.append(one)
                break
        else:
            groups.append([one])
    shared = [_shared(group, len(doubts)) for groups in by_image.values() for group in groups]
    found = (item for item in shared if item.doubt.confidence >= level)
    return sorted(found, key=lambda item: (-item.confidence, min(item.ranks), *item.doubt.order))


class _Ranked(NamedTuple):
    doubt: Doubt
    model: str
    rank: int


def _shared(group: Sequence[_Ranked], models: int) -> SharedDoubt:
    mean = math.fsum(one.doubt.confidence for one in group) / models
    names, ranks = tuple(one.model for one in group), tuple(one.rank for one in group)
    return SharedDoubt(group[0].doubt, names, ranks, mean)


def same_place(one: Doubt, other: Doubt) -> bool:
    """Whether the boxes of two doubts about an image overlap enough."""
    both = math.prod(
        max(0, min(a, b) - max(c, d))
        for a, b, c, d in zip(one.high, other.high, one.low, other.low, strict=True)
    )
    sizes = [
        math.prod(high - low for low, high in zip(d.low, d.high, strict=True)) for d in (one, other)
    ]
    return both >= SAME_PLACE * (sum(sizes) - both)
