"""Tables in the docs are those that the benchmarks' result files give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import annotate, finetune, found_mistakes, host_step, many, quality, stages

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "page", "table"),
    [
        ("audit", "audit.md", lambda found: found_mistakes.table(found["sets"])),
        ("quality", "apply.md", lambda found: quality.show(found["datasets"])),
        ("annotate", "annotate.md", lambda found: annotate.table(found["summary"])),
        ("host_step", "benchmarks.md", host_step.table),
        ("stages", "benchmarks.md", stages.table),
        ("many", "benchmarks.md", many.table),
        ("finetune", "results.md", finetune.table),
        ("finetune", "results.md", lambda found: finetune.table(found, "validation")),
    ],
)
def test_the_docs_have_the_figures_that_are_stored(
    name: str, page: str, table: Callable[[Any], str]
) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
    assert table(found) in (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_the_mean_of_turns_by_hand() -> None:
    """Weighted by images; for counts by the images that have an interval."""

    def turn(images: int, flagged: float, rank: float | None, counted: int, in_: float) -> Any:
        within = {"0.9": in_ if counted else None}
        shares = {"flagged": flagged, "rank correlation": rank, "counted": counted}
        return {"a": {"images": images, **shares, "count in interval": within}}

    turns = [turn(2, 0.5, None, 1, 0.0), turn(6, 0.0, 0.5, 3, 1.0), turn(8, 0.0, 0.5, 0, 0.0)]
    assert quality.mean_of_turns(turns) == {
        "a": {
            "images": 16,
            "flagged": 0.0625,
            "rank correlation": 0.5,
            "counted": 4,
            "count in interval": {"0.9": 0.75},
        }
    }
