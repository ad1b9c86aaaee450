"""Pictures of the report: the choice of images, error panels, plots."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.test_report_tables import metric
from unet.export.mark_colours import BOTH, FALSE, IGNORED, MISSED, SWAPPED
from unet.report import collect, figures, overlays, pooling, score_tables

NAN = math.nan


def test_picks_are_best_median_worst_and_leave_out_nan() -> None:
    score = score_tables.HEADLINE["semantic"][0]
    rows = [metric(str(k), v) for k, v in enumerate([0.3, 0.9, NAN, 0.5, 0.7, 0.1])]
    found = collect.picks(rows, "a", score, 3)
    assert [(p.rank, p.image, p.score) for p in found] == [
        ("best", "1", 0.9),
        ("median", "3", 0.5),
        ("worst", "5", 0.1),
    ]
    assert [p.rank for p in collect.picks(rows[:1], "a", score, 3)] == ["only image"]
    assert [p.rank for p in collect.picks(rows[:2], "a", score, 3)] == ["best", "worst"]
    assert [p.image for p in collect.picks(rows, "a", score, 1)] == ["3"]
    assert [p.image for p in collect.picks(rows, "a", score, 20)] == ["1", "4", "3", "0", "5"]
    assert collect.picks(rows, "a", score, 0) == []
    assert collect.picks(rows, "b", score, 3) == []
    error = next(s for s in score_tables.HEADLINE["semantic"] if s.metric == "pixel_error")
    lower = [metric(str(k), v, name="pixel_error", class_="*") for k, v in enumerate([0.2, 0.1])]
    assert [p.image for p in collect.picks(lower, "a", error, 2)] == ["1", "0"]


@given(st.integers(0, 2**31), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_worst_window_against_brute_force(seed: int, size: int) -> None:
    wrong = np.random.default_rng(seed).random((7, 5)) < 0.3
    y, x = overlays.worst_window(wrong, size)
    found = wrong[y : y + size, x : x + size]
    assert found.shape == (min(size, 7), min(size, 5))
    sums = [wrong[b : b + size, a : a + size].sum() for b in range(7) for a in range(5)]
    assert found.sum() == max(sums)


def view_of(truth: Any, pred: Any, ignored: Any = None) -> overlays.OverlayView:
    truth, pred = np.array(truth, np.uint32), np.array(pred, np.uint32)
    ignored = np.zeros(truth.shape, bool) if ignored is None else np.array(ignored, bool)
    return overlays.OverlayView(np.zeros((1, *truth.shape), np.float32), truth, pred, ignored)


def test_semantic_error_panel_tells_missed_false_and_swapped_apart() -> None:
    view = view_of([[1, 0, 1, 1, 1]], [[0, 1, 2, 1, 0]], [[0, 0, 0, 0, 1]])
    _, error = overlays._semantic_panels(view, side=5)
    share = np.array(error[0, :, :], float)
    expected = [MISSED, FALSE, SWAPPED, (0, 0, 0)]
    np.testing.assert_allclose(share[:4], 0.85 * np.array(expected), atol=1)
    assert tuple(error[0, 4]) == IGNORED
    assert overlays.errors(view, "semantic").tolist() == [[True, True, True, False, False]]
    assert overlays.errors(view, "instances").tolist() == [[True, True, False, False, False]]


def test_instance_error_panel_marks_missed_and_false_objects() -> None:
    truth, pred = np.zeros((12, 30), np.uint32), np.zeros((12, 30), np.uint32)
    truth[2:10, 1:9] = 7
    pred[2:10, 1:9] = 900_000
    truth[2:10, 11:19] = 8
    pred[2:10, 21:29] = 3
    view = view_of(truth, pred)
    maps, error = overlays._instance_panels(view, side=30)
    assert tuple(error[2, 4]) == BOTH
    assert tuple(error[2, 14]) == MISSED
    assert tuple(error[2, 24]) == FALSE
    assert tuple(error[0, 0]) == (0, 0, 0)
    # The found object has one colour in truth and prediction.
    shown = [np.array(decoded(uri)) for uri in maps]
    assert shown[0][5, 4] == shown[1][5, 4] != 0
    assert shown[0][5, 14] != 0
    assert shown[1][5, 14] == 0


def decoded(uri: str) -> Any:
    import base64
    import io

    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("task", ["semantic", "instances"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_panels_of_any_shape(task: str, shape: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, *shape)).astype(np.uint32)
    image = rng.random((channels, *shape)).astype(np.float32)
    image[0, 0, 0] = NAN
    view = overlays.OverlayView(image, labels[0], labels[1], np.zeros(shape, bool))
    found = overlays.panels(view, task, side=100)
    assert [panel.title for panel in found] == ["Image", "Truth", "Prediction", "Error"]
    assert all(max(decoded(panel.uri).size) <= 100 for panel in found)


def test_everything_ignored_or_empty_makes_panels_still() -> None:
    everything = np.ones((4, 4), bool)
    for task in ("semantic", "instances"):
        for ignored in (everything, ~everything):
            assert len(overlays.panels(view_of(~everything, ~everything, ignored), task, 8)) == 4


# Figures


def test_curves_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text(
        "epoch,step,lr,train_loss,val_loss,val_score\n1,5,.1,0.9,,\n2,10,.1,0.5,0.6,0.7\n"
        "3,15,.1,0.4,,\n4,20,.1,0.3,0.5,0.7\n"
    )
    rows = figures.read_history(path)
    train, val = (line.get_xdata() for line in figures.curves(rows).axes[0].lines[:2])
    assert list(train) == [1, 2, 3, 4]
    assert list(val) == [2, 4]
    best = figures.best_epoch(rows)
    assert best is not None
    assert best["epoch"] == 2
    assert figures.best_epoch(rows[:1]) is None


def test_curves_file_is_the_same_each_time_and_may_be_empty(tmp_path: Path) -> None:
    history = tmp_path / "history.csv"
    history.write_text("epoch,train_loss,val_loss,val_score\n1,0.9,0.8,0.1\n")
    for name in ("a.png", "b.png"):
        figures.save_curves(history, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figures.save_curves(tmp_path / "none.csv", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_reliability_plot_shows_the_bins_that_hold_pixels() -> None:
    bins = [pooling.Bin(0.1, 0.3, 20), pooling.Bin(0.9, 0.8, 5)]
    left, right = figures.reliability_plot({"cell": bins}).axes
    diagonal, line = left.lines
    assert list(diagonal.get_xdata()) == [0, 1]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.1, 0.9], [0.3, 0.8])
    assert list(right.lines[0].get_ydata()) == [20, 5]


def test_noise_can_be_shown() -> None:
    """Pure noise compresses worst: more than a byte per pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 640, 3), dtype=np.uint8)
    assert overlays._photo(noise).startswith("data:image/jpeg;base64,")
