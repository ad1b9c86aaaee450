"""Counts which planted mistakes an audit found: for benchmarks/audit.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.planted import Planted
from unet.evaluation.audit.doubts import LEVEL, Doubt

# The kinds of mistakes that the goal is about.
GOAL = ("added", "dropped", "exchanged")
# Lower ends of the classes of confidence of which the true doubts are counted.
CLASSES = (0.05, 0.25, 0.5, 0.75)
_COUNTS = ("doubts", "true")
# Columns of the table, the kinds of mistakes last.
_COLUMNS = (
    "set", "agreement", "goal, 2k", "all, k", "all, 2k", "precision, k", "random, 2k",
    "cleanlab: goal, 2k", "true of those from 0.5", "dropped", "added", "exchanged", "merged",
    "shifted",
)  # fmt: skip


def hits(doubt: Doubt, planted: Sequence[Planted], stems: dict[str, str]) -> list[int]:
    """The planted mistakes that a doubt names: at the same place of the same image. Any doubt about
    an image leads to the label that was exchanged."""
    found = []
    for k, error in enumerate(planted):
        if stems[error.image] != doubt.image:
            continue
        inside = doubt.kind != "exchanged" and all(
            low - 2 <= c < high + 2
            for c, low, high in zip(doubt.centroid, error.low, error.high, strict=True)
        )
        if inside or error.kind == "exchanged":
            found.append(k)
    return found


def counted(
    doubts: Sequence[Doubt], planted: Sequence[Planted], stems: dict[str, str], objects: int
) -> dict[str, Any]:
    """Recall by kind and precision among the first k and 2 k doubts; recall of a random order."""
    k, out = len(planted), {}
    ranking = _without_repeats([hits(doubt, planted, stems) for doubt in doubts], planted)
    for times in (1, 2):
        found = ranking[: times * k]
        caught = {n for each in found for n in each}
        recall, goal = {}, [n for n, error in enumerate(planted) if error.kind in GOAL]
        for kind in sorted({error.kind for error in planted}):
            own = {n for n, error in enumerate(planted) if error.kind == kind}
            recall[kind] = {"found": len(own & caught), "of": len(own)}
        out[f"{times}k"] = {
            "recall": len(caught) / k if k else None,
            "recall_goal": len(caught.intersection(goal)) / len(goal) if goal else None,
            "by_kind": recall,
            "precision": sum(map(bool, found)) / len(found) if found else None,
            "random_recall": min(1.0, times * k / max(1, objects)),
        }
    return out


def _without_repeats(ranking: list[list[int]], planted: Sequence[Planted]) -> list[list[int]]:
    """The ranking without doubts that only lead once more to an exchanged label."""
    known: set[int] = set()
    kept = []
    for found in ranking:
        again = [n in known and planted[n].kind == "exchanged" for n in found]
        if not again or not all(again):
            kept.append(found)
        known |= set(found)
    return kept


def certainty(
    doubts: Sequence[Doubt], planted: Sequence[Planted], stems: dict[str, str]
) -> list[dict[str, Any]]:
    """How many doubts there are of each class of confidence, and how many are about a planted
    mistake."""
    found = []
    for low, high in zip(CLASSES, (*CLASSES[1:], 1.01), strict=True):
        inside = [doubt for doubt in doubts if low <= doubt.confidence < high]
        right = sum(bool(hits(doubt, planted, stems)) for doubt in inside)
        found.append({"from": low, "doubts": len(inside), "true": right})
    return found


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median of the seeds of each number; by kind the sum over the seeds."""
    found: dict[str, Any] = {"agreement": _median([run["summary"]["agreement"] for run in runs])}
    for who in ("audit", "cleanlab"):
        if not all(run.get(who) for run in runs):
            continue
        for times in ("1k", "2k"):
            parts = [run[who][times] for run in runs]
            names = [name for name in parts[0] if name != "by_kind"]
            value: dict[str, Any] = {n: _median([part[n] for part in parts]) for n in names}
            kinds = sorted({kind for part in parts for kind in part["by_kind"]})
            value["by_kind"] = {
                kind: {
                    n: sum(part["by_kind"].get(kind, {}).get(n, 0) for part in parts)
                    for n in ("found", "of")
                }
                for kind in kinds
            }
            found.setdefault(who, {})[times] = value
    found["certainty"] = [
        {"from": low, **{n: sum(run["certainty"][k][n] for run in runs) for n in _COUNTS}}
        for k, low in enumerate(CLASSES)
    ]
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def table(sets: Sequence[dict[str, Any]]) -> str:
    """The medians as rows of a Markdown table, for docs/audit.md."""
    lines = [_row(_COLUMNS), "|" + "---|" * len(_COLUMNS)]
    for each in sets:
        value = each["median"]
        one, two, other = value["audit"]["1k"], value["audit"]["2k"], value.get("cleanlab")
        sure = [part for part in value["certainty"] if part["from"] >= LEVEL]
        kinds = [two["by_kind"].get(kind) for kind in _COLUMNS[-5:]]
        numbers = (
            value["agreement"], two["recall_goal"], one["recall"], two["recall"], one["precision"],
            two["random_recall"], other and other["2k"]["recall_goal"],
        )  # fmt: skip
        lines.append(
            _row(
                (
                    each["set"],
                    *("" if n is None else f"{n:.2f}" for n in numbers),
                    "/".join(str(sum(part[n] for part in sure)) for n in ("true", "doubts")),
                    *(f"{kind['found']}/{kind['of']}" if kind else "" for kind in kinds),
                )
            )
        )
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
