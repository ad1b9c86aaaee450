"""The kinds of findings are stable names, all of them in the module's table."""

from __future__ import annotations

import ast
import inspect
import re

from unet.cli import package_findings, start_findings, training_findings
from unet.data.survey import compared_facts, judge, judge_curves, judge_facts, known_texts

# Given as defaults.
OTHERS = {judge.OTHER, ("stop", "unreadable_dataset"), ("warn", "left_out")}
LEVELS = ("stop", "warn", "note")


def _said() -> set[tuple[str, str]]:
    """(level, kind) of the findings that the modules make, from their source."""
    said = set()
    for module in (
        compared_facts,
        judge,
        judge_curves,
        judge_facts,
        package_findings,
        start_findings,
        training_findings,
    ):
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding":
                levels, kinds = (
                    [n.value for n in ast.walk(a) if isinstance(n, ast.Constant)]
                    for a in call.args[:2]
                )
                said |= {(str(a), str(b)) for a in levels for b in kinds if a in LEVELS}
    return said


def test_every_kind_is_in_the_table() -> None:
    rows = [line.split("|") for line in (judge.__doc__ or "").splitlines() if line[:3] == "| `"]
    table = {
        (level.strip(), kind)
        for _, names, levels, *_ in rows
        for kind in re.findall(r"`(\w+)`", names)
        for level in levels.split(",")
    }
    named = (known_texts.OF_IMAGES, known_texts.OF_REASONS, known_texts.OF_DATASETS)
    used = {(level, kind) for known in (*named, known_texts.OF_ERRORS) for _, level, kind in known}
    said = _said()
    assert ("warn", "sparse_labels") in said
    across = {(a, b) for a, b in said if b.startswith("_")}
    assert across == {("warn", "_across_parts"), ("note", "_images")}
    for level, end in across:
        said |= {(level, f"{kind}{end}") for kind in ("same", "near", "neighbours")}
    assert used | (said - across) <= table
    assert {kind for _, kind in table} == {kind for _, kind in used | said - across | OTHERS}


def test_a_text_that_is_not_known_is_a_finding_still() -> None:
    assert known_texts.named("a new warning", known_texts.OF_IMAGES, judge.OTHER) == judge.OTHER
    counted = "2 of 6 images are left out; the first: a.tif: no label"
    assert known_texts.named(counted, known_texts.OF_DATASETS, judge.OTHER) is None
