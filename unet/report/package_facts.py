"""What a package of the BioImage Model Zoo says about its model besides the network: title, terms
of use, and the run that it is from. The package may come from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.errors import UserError, one_line
from unet.models.zoo_archive import open_package
from unet.models.zoo_package import OWN

LONGEST = 300


@dataclass(frozen=True)
class Told:
    """What a package says.

    Attributes:
        title: of the model; "" if there is none.
        terms: licence, authors and citation, as far as they are given.
        dataset, model, folds: the run that it is from; None if it is from a ``model.pt`` alone.
        scores: main scores in that run (:func:`unet.report.model_facts.score_values`).
    """

    title: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    dataset: str | None = None
    model: str | None = None
    folds: list[str] | None = None
    scores: list[dict[str, Any]] = field(default_factory=list)


def told_by(path: Path) -> Told:
    """What a package says.

    Raises:
        UserError: the package is damaged.
    """
    about = open_package(path).about
    cited = ("text", "doi", "url")
    terms = {
        "licence": _text(about.get("license")),
        "authors": "; ".join(_each(about.get("authors"), ("name", "affiliation"))),
        "citation": "; ".join(_each(about.get("cite"), cited)),
    }
    own = about.get("config")
    own = own.get(OWN) if isinstance(own, Mapping) else None
    text = own.get("trained") if isinstance(own, Mapping) else None
    try:
        trained = {} if text is None else _trained(json.loads(text))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: {OWN}.trained: {one_line(error, 100)}; get the package again"
        ) from None
    known = {key: value for key, value in terms.items() if value}
    return Told(_text(about.get("name")), known, **trained)


def _trained(value: Any) -> dict[str, Any]:
    numbers = ("mean", "low", "high")
    scores = [
        {
            **{key: _text(score[key]) for key in ("label", "metric", "class")},
            **{key: _number(score[key]) for key in numbers},
            "images": int(score["images"]),
        }
        for score in value["scores"]
    ]
    return {
        "dataset": _text(value["dataset"]),
        "model": _text(value["model"]),
        "folds": [str(int(value["fold"]))],
        "scores": scores,
    }


def _number(value: Any) -> float | None:
    if value is not None and not math.isfinite(float(value)):
        raise ValueError(f"a score of {value}")
    return None if value is None else float(value)


def _text(value: Any) -> str:
    return one_line(value, LONGEST) if isinstance(value, str) else ""


def _each(listed: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Each entry of a list in a description, its values behind each other."""
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, Mapping):
            yield ", ".join(text for key in keys if (text := _text(entry.get(key))))
