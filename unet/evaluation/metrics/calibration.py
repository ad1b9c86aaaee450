"""How well probabilities are calibrated: ECE, Brier score and the table of a reliability plot.

Everything is computed from sums over pixels that add up over blocks and images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.evaluation.metrics.chunks import chunks, kept
from unet.evaluation.metrics.pixel import ALL
from unet.evaluation.metrics.rows import Score, ratio

BINS = 15  # as Guo et al. 2017


@dataclass(frozen=True, eq=False)
class Reliability:
    """Sums over pixels, per statement (see `statements`) and bin of its confidence.

    ``pixels`` int64 [S, BINS]; ``confidence`` float64 [S, BINS], sum of the confidences; ``right``
    int64 [S, BINS], pixels for which the statement is true; ``squares`` float64 [S], sum of the
    squared errors of the Brier score.
    """

    pixels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.int64]
    squares: NDArray[np.float64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.pixels + other.pixels,
            self.confidence + other.confidence,
            self.right + other.right,
            self.squares + other.squares,
        )


def statements(names: Sequence[str]) -> tuple[str, ...]:
    """The statements to test: "the pixel belongs to this class", for each class after the first;
    with more than two classes also "it belongs to the most probable class" (named "all")."""
    return (*names[1:], *([ALL] if len(names) > 2 else []))


def reliability(truth: NDArray[Any], probabilities: NDArray[Any], first: int = 0) -> Reliability:
    """Sums of one block.

    truth: class index [(Z,) Y, X], 255 = ignore. probabilities: float [K, (Z,) Y, X] of the K
    classes; ``first`` is the index of the first one given: with two classes, that of class 0 may be
    left out. Bin b of n has confidences from b / n (included) to (b + 1) / n; 1 is in the last bin.
    """
    if truth.shape != probabilities.shape[1:]:
        raise ValueError(f"truth has shape {truth.shape}, probabilities {probabilities.shape}")
    t, every = kept(truth != IGNORE, truth, probabilities)
    classes = range(first, first + len(every))
    number = len(classes[1 - first :]) + (classes.stop > 2)
    counts = np.zeros((number, 2 * BINS), np.int64)
    confidences = np.zeros((number, BINS))
    summed = np.zeros(number)
    for chunk in chunks(len(t)):
        p = every[:, chunk].astype(np.float64)
        own = [t[chunk] == k for k in classes]
        squares = [(p[i] - own[i]) ** 2 for i in range(len(p))]
        found = list(zip(p, own, squares, strict=True))[1 - first :]
        if classes.stop > 2:
            found.append((p.max(axis=0), t[chunk] == p.argmax(axis=0), sum(squares)))
        for k, (confidence, right, square) in enumerate(found):
            at = np.clip((confidence * BINS).astype(np.intp), 0, BINS - 1)
            counts[k] += np.bincount(at + BINS * right, minlength=2 * BINS)
            confidences[k] += np.bincount(at, confidence, BINS)
            summed[k] += square.sum()
    right = counts[:, BINS:]
    return Reliability(counts[:, :BINS] + right, confidences, right, summed)


def calibration_metrics(sums: Reliability, names: Sequence[str]) -> list[Score]:
    """Scores of each statement, class = its name.

    ``brier`` (Brier 1950, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2): mean squared error
    of the class's probability, 0..1; for "all" the sum over the classes, 0..2. ``ece``: expected
    calibration error, the mean over pixels of |share that is right - mean confidence| of their
    bin (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599, eq. 3). ``reliability_01`` ..: the
    share of pixels in each bin that are right; ``confidence_01`` ..: their mean confidence.
    """
    rows: list[Score] = []
    for k, name in enumerate(statements(names)):
        pixels, confidence, right = sums.pixels[k], sums.confidence[k], sums.right[k]
        rows.append(ratio(name, "brier", float(sums.squares[k]), float(pixels.sum())))
        gap = float(np.abs(right - confidence).sum())
        # The gaps of images do not add up (they may cancel), so ECE is pooled from the bins.
        rows.append(Score(name, "ece", ratio(name, "ece", gap, float(pixels.sum())).value))
        for b in range(len(pixels)):
            n = float(pixels[b])
            rows.append(ratio(name, f"reliability_{b + 1:02d}", float(right[b]), n))
            rows.append(ratio(name, f"confidence_{b + 1:02d}", float(confidence[b]), n))
    return rows
