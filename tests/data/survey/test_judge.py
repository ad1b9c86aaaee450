"""The kinds of findings are stable names, all of them in the module's table."""

from __future__ import annotations

import re

from unet.data.survey import judge, known_texts


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
    assert used <= table


def test_a_text_that_is_not_known_is_a_finding_still() -> None:
    assert known_texts.named("a new warning", known_texts.OF_IMAGES, judge.OTHER) == judge.OTHER
    counted = "2 of 6 images are left out; the first: a.tif: no label"
    assert known_texts.named(counted, known_texts.OF_DATASETS, judge.OTHER) is None
