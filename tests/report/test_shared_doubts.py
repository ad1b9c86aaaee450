"""The doubts of several models about the same labels."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.evaluation.audit.doubts import Doubt
from unet.report.shared_doubts import shared_doubts


def test_models_that_agree_do_not_boost_each_other() -> None:
    doubt = Doubt("a", 0, "missing", 0.6, "", (5.0, 5.0), (0, 0), (10, 10), 90)
    near, far = replace(doubt, low=(2, 2), high=(11, 11)), replace(doubt, low=(9, 9), high=(19, 19))
    other = replace(doubt, kind="denied", confidence=0.7)
    weak = replace(doubt, image="b", confidence=0.4)
    found = shared_doubts({"x": [doubt, other, weak], "y": [near, far]})
    assert [(each.models, each.doubt.kind) for each in found] == [
        (("x", "y"), "missing"), (("x",), "denied"), (("y",), "missing"),
    ]  # fmt: skip
    # The ranks are those in the tables of the models.
    assert [each.ranks for each in found] == [(1, 1), (2,), (2,)]
    # Each the mean; a model that does not doubt a place counts as 0.
    assert [each.confidence for each in found] == pytest.approx([0.6, 0.35, 0.3])


@given(st.lists(st.sampled_from([0.5, 0.75, 1.0]), max_size=6), st.randoms())
def test_one_model_alone_keeps_its_ranks(found: list[float], random: Random) -> None:
    """Also those of equal confidence: a table has rounded ones."""
    doubt = Doubt("a", 0, "missing", 0.6, "", (5.0, 5.0), (0, 0), (10, 10), 90)
    names = random.sample("abcdef", len(found))
    table = [
        replace(doubt, image=name, confidence=c)
        for name, c in zip(names, sorted(found, reverse=True), strict=True)
    ]
    ranks = [each.ranks for each in shared_doubts({"m": table})]
    assert ranks == [(rank,) for rank in range(1, len(found) + 1)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_a_shared_doubt_is_never_surer_than_its_models(found: list[float]) -> None:
    doubt = Doubt("a", 0, "missing", 0.6, "", (5.0, 5.0), (0, 0), (10, 10), 90)
    models = {f"m{k}": [replace(doubt, confidence=c)] for k, c in enumerate(found)}
    (shared,) = shared_doubts(models, 0)
    assert min(found) - 1e-9 <= shared.confidence <= max(found) + 1e-9
    assert len(shared.models) == len(found)
