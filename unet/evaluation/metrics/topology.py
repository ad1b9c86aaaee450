"""Scores of boundary maps: does the predicted membrane separate the right cells?

V_rand and V_info, foreground-restricted, after border thinning: the final metrics of the ISBI
2012 challenge (Arganda-Carreras et al. 2015, doi 10.3389/fnana.2015.00142, here "AC15"). Unlike
pixel metrics, they hardly depend on a membrane's width, but penalise a gap that merges two cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet.evaluation.metrics.contingency import Contingency, contingency, marginal
from unet.evaluation.metrics.pixel import mean_of_defined


class SplitMerge(NamedTuple):
    """A score and its two parts, all in 0..1, 1 is best; NaN if the truth has no foreground.

    ``split`` falls if true segments are split, ``merge`` if they are merged; ``score`` is their
    weighted harmonic mean.
    """

    score: float
    split: float
    merge: float


class Partition(NamedTuple):
    """Sizes in pixels within the truth's foreground, float [..]; ``singles`` is a number.

    ``pairs``: overlaps of a true and a predicted segment; ``truth``: true segments; ``pred``:
    predicted segments other than 0; ``singles``: foreground pixels predicted 0.
    """

    pairs: NDArray[np.float64]
    truth: NDArray[np.float64]
    pred: NDArray[np.float64]
    singles: float


def v_rand(table: Contingency, alpha: float = 0.5) -> SplitMerge:
    """Foreground-restricted Rand score (AC15), from a table of segment ids.

    With p_ij, t_k, s_k the pixels of overlaps, true and predicted segments: split = sum p^2 /
    sum t^2, merge = sum p^2 / sum s^2, score = sum p^2 / (alpha sum s^2 + (1 - alpha) sum t^2).
    Pixels whose truth is 0 are left out; each other pixel predicted as 0 is a segment of its own.
    """
    _check_alpha(alpha)
    parts = partition(table)
    if not parts.truth.size:
        return SplitMerge(*[float("nan")] * 3)
    pairs = float((parts.pairs**2).sum()) + parts.singles
    pred = float((parts.pred**2).sum()) + parts.singles
    truth = float((parts.truth**2).sum())
    return SplitMerge(
        pairs / (alpha * pred + (1 - alpha) * truth), split=pairs / truth, merge=pairs / pred
    )


def v_info(table: Contingency, alpha: float = 0.5) -> SplitMerge:
    """Foreground-restricted information theoretic score (AC15).

    With I the mutual information of the segmentations S (predicted) and T (true) and H their
    entropies: split = I/H(S), merge = I/H(T), score = I / (alpha H(T) + (1 - alpha) H(S)).
    Zeros as in `v_rand`. A single segment has H = 0: then split (merge) is 1, because nothing can
    be split (merged), and the score is 0, or 1 if both H are 0.
    """
    _check_alpha(alpha)
    parts = partition(table)
    if not parts.truth.size:
        return SplitMerge(*[float("nan")] * 3)
    total = float(parts.truth.sum())
    h_truth = _entropy(parts.truth, 0.0, total)
    h_pred = _entropy(parts.pred, parts.singles, total)
    h_both = _entropy(parts.pairs, parts.singles, total)
    # The clip removes rounding: two equal terms of a long sum may differ in the last digits.
    information = float(np.clip(h_truth + h_pred - h_both, 0.0, min(h_truth, h_pred)))
    weight = alpha * h_truth + (1 - alpha) * h_pred
    return SplitMerge(
        information / weight if weight > 0 else 1.0,
        split=information / h_pred if h_pred > 0 else 1.0,
        merge=information / h_truth if h_truth > 0 else 1.0,
    )


def boundary_map_scores(
    truth_cells: NDArray[np.bool_], pred_cells: NDArray[np.bool_], *, thin: bool = True
) -> dict[str, float]:
    """``v_rand``, ``v_info`` and their ``_split``, ``_merge`` of a predicted boundary map.

    truth_cells, pred_cells: bool [.., Y, X], True inside a cell, False on a membrane. Every
    [Y, X] slice is scored on its own and the scores are averaged, as the challenge does. Slices
    without true cells are left out (all NaN if no slice is left). Ignored pixels are False in
    ``truth_cells``. True cells are labelled as 4-connected components, predicted ones by
    `thinned_labels`; without ``thin`` predicted cells are 4-connected components, too, so that
    each predicted membrane pixel inside a true cell is a segment of its own.
    """
    if truth_cells.shape != pred_cells.shape or truth_cells.ndim < 2:
        raise ValueError(f"need equal [.., Y, X], got {truth_cells.shape}, {pred_cells.shape}")
    if truth_cells.dtype != np.bool_ or pred_cells.dtype != np.bool_:
        raise ValueError(f"need bool, got {truth_cells.dtype} and {pred_cells.dtype}")
    return _scores(_truth_slices(truth_cells), pred_cells, thin)


def score_thresholds(
    truth_cells: NDArray[np.bool_],
    prob_cell: NDArray[Any],
    thresholds: Iterable[float],
    *,
    thin: bool = True,
) -> dict[float, dict[str, float]]:
    """`boundary_map_scores` of ``prob_cell > threshold`` for each threshold.

    truth_cells: bool [.., Y, X]; prob_cell: float of that shape, the probability of being inside a
    cell. The challenge reports the maximum over thresholds 0, 0.1, .. 1, for V_rand and V_info
    each (which is optimistic if it is taken on the scored images).
    """
    if truth_cells.shape != prob_cell.shape or truth_cells.ndim < 2:
        raise ValueError(f"need equal [.., Y, X], got {truth_cells.shape}, {prob_cell.shape}")
    truth = _truth_slices(truth_cells)
    return {threshold: _scores(truth, prob_cell > threshold, thin) for threshold in thresholds}


def thinned_labels(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels the 4-connected cells of a bool [Y, X] map after thinning its membranes to one pixel.

    int32 [Y, X], 0 on the thinned membrane. The cells grow into the membranes, equally in all
    directions, until they meet (watershed on a flat image, as in the challenge's own script).
    Membranes that separate nothing vanish, and cells are never merged. A map without cells is one
    segment.

    A skeleton of the membranes would not work: it ends before the image border, so that cells
    there would be joined (V_rand of the challenge's own labels against themselves: 0.61 to 0.73).
    """
    from scipy.ndimage import label
    from skimage import segmentation

    seeds, count = label(cells)
    if count < 2:
        return np.ones(cells.shape, np.int32)
    watershed: Callable[..., NDArray[np.int32]] = segmentation.watershed
    flat = np.zeros(cells.shape, np.uint8)
    return watershed(flat, seeds, connectivity=1, watershed_line=True)


def _truth_slices(truth_cells: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    return [connected_cells(cells) for cells in _slices(truth_cells)]


def connected_cells(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The 4-connected components of a bool [Y, X] map, numbered from 1."""
    from scipy.ndimage import label

    labels: NDArray[np.int32] = label(cells)[0]
    return labels


def _scores(
    truth: list[NDArray[np.int32]], pred_cells: NDArray[np.bool_], thin: bool
) -> dict[str, float]:
    segments = thinned_labels if thin else connected_cells
    values: dict[str, list[float]] = {}
    for labels, cells in zip(truth, _slices(pred_cells), strict=True):
        table = contingency(labels, segments(cells))
        for name, result in (("v_rand", v_rand(table)), ("v_info", v_info(table))):
            values.setdefault(name, []).append(result.score)
            values.setdefault(f"{name}_split", []).append(result.split)
            values.setdefault(f"{name}_merge", []).append(result.merge)
    return {name: mean_of_defined(slices) for name, slices in values.items()}


def _slices(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return cells.reshape(-1, *cells.shape[-2:])


def partition(table: Contingency) -> Partition:
    foreground = table.truth_ids != 0
    segmented = foreground & (table.pred_ids != 0)
    counts = table.counts
    _, truth = marginal(table.truth_ids[foreground], counts[foreground])
    _, pred = marginal(table.pred_ids[segmented], counts[segmented])
    return Partition(
        counts[segmented].astype(np.float64),
        truth.astype(np.float64),
        pred.astype(np.float64),
        float(counts[foreground & ~segmented].sum()),
    )


def _entropy(sizes: NDArray[np.float64], singles: float, total: float) -> float:
    """Entropy in bits of segments with these sizes and ``singles`` segments of one pixel."""
    p = sizes / total
    return abs(float(-(p * np.log2(p)).sum())) + singles / total * float(np.log2(total))


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in 0..1, got {alpha}")
