"""The details stage: its tables by hand, and what they add up to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.evaluated import BORDER, NAMES, Stores, values
from unet import provenance
from unet.errors import UserError
from unet.evaluation.block_parts import border_ids, counts_by_probability
from unet.evaluation.blockwise import ScoredPair
from unet.evaluation.details import (
    CONFUSION_COLUMNS,
    MATCH_COLUMNS,
    THRESHOLD_COLUMNS,
    confusion_rows,
)
from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.instance import instance_metrics
from unet.evaluation.metrics.pixel import confusion, pixel_metrics
from unet.evaluation.object_pairs import FALSE, MATCHED, MISSED, ObjectPair, object_pairs
from unet.evaluation.scan import Part, scanned
from unet.tables import read_table

T = TypeVar("T")


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def rows_of(path: Path) -> list[tuple[str, ...]]:
    frame = read_table(path, "details")
    return [tuple(row) for row in frame.itertuples(index=False)]


def text_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# --- objects


def test_objects_by_hand(stores: Stores) -> None:
    # Truth: 1 (four pixels), 2 (two), 3 (one, inside). Predicted: 7 covers three of the four of 1,
    # 8 nothing true, 5 is 2, 9 lies in ignored pixels alone.
    stores.truth(
        "a",
        [[1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 255, 255]],
        [[1, 1, 1, 1, 0, 0], [0, 0, 3, 0, 0, 0], [2, 2, 0, 0, 0, 0]],
    )
    stores.prediction(
        "a",
        [[1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 1]],
        [[7, 7, 7, 0, 0, 8], [0, 0, 0, 0, 0, 0], [5, 5, 0, 0, 9, 9]],
        probabilities=np.zeros((2, 3, 6)),
        size=(0.5, 0.4),
    )
    matches = stores.details("instances", groups={"a": "mouse 1"}).matches
    assert text_of(matches) == [
        ",".join(MATCH_COLUMNS),
        "a,0,mouse 1,matched,1,7,0.75,4,3,1,0.2",
        "a,0,mouse 1,matched,2,5,1,2,2,1,0.2",
        "a,0,mouse 1,missed,3,,0,1,,0,0.2",
        "a,0,mouse 1,false,,8,0,,1,1,0.2",
    ]


def test_partners_below_half_are_named_but_do_not_match() -> None:
    # 1 is split into 4 and 5 (3 and 2 of its 6 pixels, 5 reaches out): neither IoU is above 0.5,
    # and 4 has exactly 0.5.
    truth = np.array([[1, 1, 1, 1, 1, 1, 0, 0]])
    exactly = np.array([[4, 4, 4, 0, 5, 5, 5, 0]])
    assert list(object_pairs(contingency(truth, exactly), {1}, ())) == [
        ObjectPair(MATCHED, 1, 4, 0.5, 6, 3, True),
        ObjectPair(FALSE, 1, 5, pytest.approx(2 / 7), 6, 3, False),
    ]
    less = np.array([[4, 4, 0, 0, 5, 5, 5, 0]])
    assert list(object_pairs(contingency(truth, less))) == [
        ObjectPair(MISSED, 1, 4, pytest.approx(2 / 6), 6, 2, False),
        ObjectPair(FALSE, 1, 4, pytest.approx(2 / 6), 6, 2, False),
        ObjectPair(FALSE, 1, 5, pytest.approx(2 / 7), 6, 3, False),
    ]


@pytest.mark.parametrize(("true", "pred", "kinds"), [
    (0, 0, []), (1, 0, [MISSED]), (0, 1, [FALSE]), (1, 1, [MATCHED]),
])  # fmt: skip
def test_empty_masks(true: int, pred: int, kinds: list[str]) -> None:
    table = contingency(np.full((2, 2), true), np.full((2, 2), pred))
    assert [row.kind for row in object_pairs(table)] == kinds


IDS = hnp.arrays(np.uint32, (7, 9), elements=st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(truth=IDS, pred=IDS)
def test_objects_add_up_to_the_scores(truth: Any, pred: Any) -> None:
    table = contingency(truth, pred)
    scores = {score.metric: score.value for score in instance_metrics(table)}
    rows = list(object_pairs(table))
    n = Counter(row.kind for row in rows)
    assert n[MATCHED] + n[MISSED] == scores["n_true"]
    assert n[MATCHED] + n[FALSE] == scores["n_pred"]
    total = n.total()
    ap = n[MATCHED] / total if total else np.nan
    np.testing.assert_allclose(scores["ap_0.50"], ap)
    if n[MATCHED]:
        found = [row.iou for row in rows if row.kind == MATCHED]
        np.testing.assert_allclose(scores["sq"], np.mean(found))
    true = {row.true_id: row.true_px for row in rows if row.kind != FALSE}
    assert true == {k: int((truth == k).sum()) for k in np.unique(truth) if k}
    pred_rows = [row for row in rows if row.kind != MISSED]
    assert {row.pred_id: row.pred_px for row in pred_rows} == {
        k: int((pred == k).sum()) for k in np.unique(pred) if k
    }


def in_memory(array: Any) -> Any:
    result = zarr.create_array(
        {}, shape=array.shape, dtype=array.dtype, chunks=(2,) * array.ndim,
        shards=(4,) * array.ndim,
    )  # fmt: skip
    result[:] = array
    return result


@settings(max_examples=15, deadline=None)
@given(ids=st.one_of(IDS, hnp.arrays(np.uint32, (3, 4, 5), elements=st.integers(0, 30))),
       block=st.one_of(st.none(), st.integers(1, 5)))  # fmt: skip
def test_objects_at_the_border(ids: Any, block: int | None) -> None:
    array = in_memory(ids)
    pair = ScoredPair("a", array, array, array, array, None, NAMES)
    inside = ids[tuple(slice(1, -1) for _ in ids.shape)]
    edge = np.ones(ids.shape, bool)
    edge[tuple(slice(1, -1) for _ in ids.shape)] = False
    assert inside.size == ids.size - edge.sum()
    assert total(pair, border_ids("truth_ids"), block) == set(ids[edge].tolist()) - {0}


def total(pair: ScoredPair, part: Part[Any, T], block: int | None = None) -> T:
    with scanned(pair, (part,), 2, block) as totals:
        return totals[part]


# --- classes

MAP = hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255]))
THREE = ("sky", "wall", "cell")


def test_classes_by_hand_without_ignored_pixels(stores: Stores) -> None:
    stores.truth("a", [[0, 0, 1, 1], [255, 1, 1, 0]])
    stores.prediction("a", [[0, 1, 1, 1], [1, 0, 1, 0]], probabilities=np.zeros((2, 2, 4)))
    tables = stores.details()
    assert text_of(tables.confusion) == [
        ",".join(CONFUSION_COLUMNS),
        "a,0,,background,background,2",
        "a,0,,background,foreground,1",
        "a,0,,foreground,background,1",
        "a,0,,foreground,foreground,3",
    ]
    assert text_of(tables.matches) == [",".join(MATCH_COLUMNS)]


def test_all_ignored_has_no_rows(stores: Stores) -> None:
    stores.truth("a", [[255, 255]])
    stores.prediction("a", [[0, 1]], probabilities=np.full((2, 1, 2), 0.5))
    assert [len(text_of(path)) for path in stores.details()] == [1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(truth=MAP, pred=MAP)
def test_pixels_add_up_to_the_iou(truth: Any, pred: Any) -> None:
    pred = np.where(pred == 255, 0, pred).astype(np.uint8)
    matrix = confusion(truth, pred, 3)
    rows = confusion_rows(matrix.tolist(), THREE)
    assert sum(n for *_, n in rows) == (truth != 255).sum()
    assert all(n > 0 for *_, n in rows)
    wanted = {(s.class_, s.metric): s.value for s in pixel_metrics(matrix, THREE)}
    for name in THREE:
        both = sum(n for true, found, n in rows if true == found == name)
        either = sum(n for true, found, n in rows if name in (true, found))
        iou = both / either if either else np.nan
        np.testing.assert_allclose(wanted[name, "iou"], iou)


# --- probabilities


def test_probabilities_by_hand(stores: Stores) -> None:
    stores.truth("a", [[0, 0, 1, 1, 255]])
    stores.prediction(
        "a", [[0, 1, 0, 1, 1]],
        probabilities=[[[1, 0.5, 0.5, 0, 0]], [[0, 0.5, 0.5, 1, 1]]],
    )  # fmt: skip
    assert text_of(stores.details().thresholds) == [
        ",".join(THRESHOLD_COLUMNS),
        "a,0,,foreground,0,0,1",
        "a,0,,foreground,0.5,1,1",
        "a,0,,foreground,0.984375,1,0",
    ]


@settings(max_examples=25, deadline=None)
@given(
    truth=hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 255])),
    p=hnp.arrays(np.float16, (6, 7), elements=st.floats(0, 1, width=16)),
    head=st.sampled_from([NAMES, BORDER]), block=st.one_of(st.none(), st.integers(2, 7)),
)  # fmt: skip
def test_probabilities_add_up(truth: Any, p: Any, head: Any, block: int | None) -> None:
    channels = [1 - p, p] if head == NAMES else [1 - p, p / 2, p / 2]
    probabilities = in_memory_channels(np.stack(channels).astype(np.float16))
    array = in_memory(truth)
    pair = ScoredPair("a", array, array, None, None, probabilities, head)
    counts = total(pair, counts_by_probability(NAMES), block)["foreground"]
    assert counts.positives.sum() == (truth == 1).sum()
    assert counts.negatives.sum() == (truth == 0).sum()
    # At 0.5, which is an edge of the bins: the counts of the mask.
    own = np.asarray(probabilities[:]).astype(np.float32)
    mask = (own[1] if head == NAMES else 1 - own[0]) >= 0.5
    assert counts.positives[32:].sum() == (mask & (truth == 1)).sum()
    assert counts.negatives[32:].sum() == (mask & (truth == 0)).sum()


def in_memory_channels(array: Any) -> Any:
    result = zarr.create_array({}, shape=array.shape, dtype=array.dtype, chunks=(1, 2, 2))
    result[:] = array
    return result


def test_masks_without_probabilities_have_no_thresholds() -> None:
    array = in_memory(np.zeros((2, 2), np.uint8))
    pair = ScoredPair("a", array, array, None, None, None, NAMES)
    assert total(pair, counts_by_probability(NAMES)) == {}
    # Nor has a class that the network's outputs do not tell apart.
    p = in_memory_channels(np.zeros((3, 2, 2), np.float16))
    pair = ScoredPair("a", array, array, None, None, p, BORDER)
    assert total(pair, counts_by_probability(THREE)) == {}


# --- the stage


@pytest.mark.parametrize("shape", [(9, 13), (3, 7, 6)])
def test_blocks_and_threads_change_no_row(stores: Stores, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        ids = [rng.integers(0, 5, shape), rng.integers(0, 6, shape)]
        classes = [np.where(rng.random(shape) < 0.1, 255, ids[0] > 0), ids[1] > 0]
        p = rng.random(shape)
        stores.truth(name, classes[0], ids[0])
        stores.prediction(name, classes[1], ids[1], [1 - p, p], fold=int(name == "c"))
    found = [
        [path.read_bytes() for path in stores.details("instances", threads=t, block=b)]
        for t, b in ((1, None), (3, 4), (2, 100))
    ]
    assert found[0] == found[1] == found[2]
    table = read_table(stores.details("instances").matches, "details")
    scored = stores.evaluate("instance", task="instances")
    for name in "abc":
        kinds = Counter(table[table["image"] == name]["kind"])
        score = values(scored, name)
        assert kinds[MATCHED] + kinds[MISSED] == score["n_true"]
        assert kinds[MATCHED] / kinds.total() == pytest.approx(score["ap_0.50"])


def test_only_test_images(stores: Stores) -> None:
    for image, part in (("a", "test"), ("v", "val")):
        stores.truth(image, [[0, 1]])
        stores.prediction(image, [[0, 1]], probabilities=np.zeros((2, 1, 2)), part=part)
    assert {row[0] for row in rows_of(stores.details().confusion)} == {"a"}


def test_a_mistake_leaves_nothing_half_written(stores: Stores) -> None:
    stores.truth("a", [[0, 1]])
    stores.prediction("a", [[0, 1]])
    with pytest.raises(UserError, match="the prepare stage made no instances"):
        stores.details("instances")
    folder = stores.root / stores.dataset / stores.model / "details"
    assert not folder.exists() or not list(folder.iterdir())


def test_command_line(stores: Stores) -> None:
    from scripts.details import main

    stores.truth("a", [[0, 1]], group="mouse 1")
    stores.prediction("a", [[0, 1]], probabilities=np.zeros((2, 1, 2)))
    told = '{"version": 1, "task": "semantic", "class_names": ["background", "foreground"]}'
    words = ["--output", str(stores.root), "--dataset", stores.dataset, "--model", stores.model]
    assert main([*words, "--folds", "0", "--settings", told]) == 0
    folder = stores.root / stores.dataset / stores.model / "details"
    for name in ("matches", "confusion", "thresholds"):
        made = provenance.read_made_by(folder / f"{name}.csv")
        assert made is not None
        assert made["stage"] == "details"
        assert len(made["inputs"]) == 2
    assert rows_of(folder / "confusion.csv")[0][:3] == ("a", "0", "mouse 1")
