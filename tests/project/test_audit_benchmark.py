"""The audit benchmark's own arithmetic: what is planted, and what counts as found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.found_mistakes import certainty, counted, hits, medians, table
from benchmarks.planted import Planted, plant
from unet.evaluation.audit.doubts import Doubt

STEMS = {"a.tif": "a", "b.tif": "b", "c.tif": "c"}
PLANTED = [
    Planted("a.tif", "dropped", (10, 10), (20, 20)),
    Planted("a.tif", "shifted", (40, 40), (50, 50)),
    Planted("b.tif", "exchanged", (0, 0), (64, 64)),
    Planted("c.tif", "exchanged", (0, 0), (64, 64)),
]


def doubt(image: str, at: float, kind: str = "missing", confidence: float = 0.9) -> Doubt:
    low, high = (int(at) - 5,) * 2, (int(at) + 5,) * 2
    return Doubt(image, 0, kind, confidence, "", (at, at), low, high, 100)


def labels() -> dict[str, Any]:
    """Ten images of nine squares, all different."""
    found = {}
    for k in range(10):
        ids = np.zeros((96, 96), np.uint16)
        for n in range(9):
            y, x = 6 + 30 * (n // 3) + k, 6 + 30 * (n % 3)
            ids[y : y + 8, x : x + 8] = n + 1
        # A neighbour that touches the first one.
        ids[6 + k : 14 + k, 14:22] = 10
        found[f"im{k}.tif"] = ids
    return found


def test_what_is_planted_is_what_differs() -> None:
    before, after = labels(), labels()
    planted = plant(after, "instances", 3)
    assert plant(labels(), "instances", 3) == planted != plant(labels(), "instances", 4)
    kinds = [error.kind for error in planted]
    # 5 % of the 80 objects of the 8 images that keep their label.
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "dropped": 4, "added": 4, "merged": 4, "shifted": 4, "exchanged": 2,
    }  # fmt: skip
    one, other = (error.image for error in planted if error.kind == "exchanged")
    assert (after[one] == before[other]).all()
    for name, ids in before.items():
        inside = np.zeros(ids.shape, bool)
        for error in planted:
            if error.image == name:
                inside[tuple(slice(a, b) for a, b in zip(error.low, error.high, strict=True))] = 1
        assert not (ids != after[name])[~inside].any()


def test_hits_by_hand() -> None:
    assert hits(doubt("a", 15), PLANTED, STEMS) == [0]
    assert hits(doubt("a", 21), PLANTED, STEMS) == [0]
    assert hits(doubt("a", 23), PLANTED, STEMS) == []
    assert hits(doubt("b", 15), PLANTED, STEMS) == [2]
    assert hits(doubt("a", 15, "exchanged"), PLANTED, STEMS) == []


def test_recall_and_precision_by_hand() -> None:
    found = [doubt("a", 15), doubt("a", 70), doubt("b", 5), doubt("a", 75), doubt("a", 45)]
    both = counted(found, PLANTED, STEMS, 40)
    assert both["1k"]["recall"] == both["1k"]["precision"] == 0.5
    assert both["1k"]["recall_goal"] == pytest.approx(2 / 3)
    assert both["1k"]["random_recall"] == 0.1
    assert both["2k"]["recall"] == 0.75
    assert both["2k"]["precision"] == pytest.approx(3 / 5)
    assert both["2k"]["by_kind"]["exchanged"] == {"found": 1, "of": 2}


def test_more_doubts_about_an_exchanged_label_do_not_use_up_the_ranks() -> None:
    found = [doubt("b", at) for at in range(5, 60, 5)] + [doubt("c", 9), doubt("a", 45)]
    assert counted(found, PLANTED, STEMS, 40)["1k"]["recall"] == 0.75
    # A place that is found twice does.
    found = [doubt("a", 15)] * 4 + [doubt("a", 45)]
    assert counted(found, PLANTED, STEMS, 40)["1k"]["recall"] == 0.25


def test_nothing_planted_and_nothing_found() -> None:
    assert counted([], [], STEMS, 0)["1k"]["recall"] is None
    assert counted([], PLANTED, STEMS, 40)["2k"]["recall"] == 0
    assert counted([], PLANTED, STEMS, 40)["2k"]["precision"] is None


def test_medians_and_table_by_hand() -> None:
    found = [doubt("a", 15), doubt("a", 70, confidence=0.6), doubt("b", 5, confidence=0.3)]
    runs = []
    for seed, agreement in enumerate((0.5, 0.9, 0.6)):
        ranking = found[: seed + 1]
        runs.append(
            {
                "summary": {"agreement": agreement},
                "audit": counted(ranking, PLANTED, STEMS, 40),
                "certainty": certainty(ranking, PLANTED, STEMS),
            }
        )
    value = medians(runs)
    assert (value["agreement"], value["audit"]["2k"]["recall"]) == (0.6, 0.25)
    assert value["audit"]["2k"]["by_kind"]["dropped"] == {"found": 3, "of": 3}
    assert [(part["doubts"], part["true"]) for part in value["certainty"]] == [
        (0, 0), (1, 1), (2, 0), (3, 3),
    ]  # fmt: skip
    last = table([{"set": "x", "median": value}]).splitlines()[-1]
    assert last == (
        "| x | 0.60 | 0.33 | 0.25 | 0.25 | 0.67 | 0.20 |  | 3/5 | 3/3 |  | 1/6 |  | 0/3 |"
    )


def test_certainty_by_hand() -> None:
    found = [replace(doubt("a", 15), confidence=c) for c in (1.0, 0.75, 0.74, 0.05, 0.04)]
    assert [part["doubts"] for part in certainty(found, PLANTED, STEMS)] == [1, 0, 1, 2]
