"""When a main score is so low that the result must not pass for a good one, whatever the others.

Both limits follow from what the scores mean; no images were used to choose them. AP@0.5 is
TP / (TP + FP + FN) over objects, IoU the same over pixels, and a = AP or IoU is worth F1 (Dice) =
2 a / (1 + a), the share of the predicted and true objects (pixels) together that match. F1 grows
less than in proportion to ``a``, so a mean of ``a`` below a limit is a mean of F1 below the limit's
F1, too (Jensen's inequality).
"""

from __future__ import annotations

import math

from unet.errors import how_many
from unet.evaluation.quality.quality_table import SCORE_NAMES, QualityRow
from unet.evaluation.statistics import FEW_UNITS

# F1 is below 0.5: more is wrong than right.
POOR = 0.33
# F1 is below 0.2 (0.18): hardly anything is right.
NEAR_ZERO = 0.1
# A rank correlation is useless up to this one: the order explains less than a tenth (0.3 squared)
# of the spread of the true order...
LEAST_CORRELATION = 0.3
# ...and up to so many standard errors, 1 / sqrt(n - 1), which chance alone exceeds in one of 20
# cases (one-sided; Kendall & Gibbons 1990, "Rank correlation methods").
LEAST_ERRORS = 1.645
_VERY_LOW = "is very low: more is wrong than right"
_NO_INTERVAL = "its count has no interval: errors on held-out images say nothing about it"


def never_quiet(row: QualityRow, task: str) -> QualityRow:
    """The row by the rules that hold whatever the held-out images look like.

    A predicted score below POOR needs a look, and an image unlike the training images has no
    interval for its count: errors on held-out images say nothing about it. A second call changes
    nothing, so that tables of earlier versions can be read by these rules, too.
    """
    why = [row.why] if row.why else []
    unlike = row.drift > 1 or bool(row.drift_reasons)
    if unlike and not math.isnan(row.count_low):
        why.append(_NO_INTERVAL)
        row = row._replace(count_low=math.nan, count_high=math.nan)
    if row.predicted_score < POOR and _VERY_LOW not in row.why:
        score = below(row.predicted_score, POOR)
        why.append(f"its predicted {SCORE_NAMES[task]} of {score} {_VERY_LOW}")
        row = row._replace(flagged=True)
    return row._replace(why="; ".join(why))


def below(score: float, limit: float) -> str:
    """A score that is below a limit, with as many decimals as it takes to see that, at least two:
    0.3296 is no "0.33" beside a limit of 0.33."""
    texts = (f"{score:.{digits}f}" for digits in range(2, 17))
    return next((text for text in texts if float(text) < limit), f"just below {limit}")


def few_note(images: int, units: int) -> str:
    """That a mean rests on few images, to follow its value; "" if there are enough.

    Args:
        units: number of their groups; that of the images without groups.
    """
    if units >= FEW_UNITS:
        return ""
    what = how_many(units, "image" if units == images else "group")
    return f" ({what}: few, so the mean is uncertain)"


def poor_model(score: float, name: str, images: int, units: int) -> str:
    """That a model is poor on its own held-out images; "" if it is not, or none was scored.

    Args:
        score: their mean main score, NaN = none.
        name: of the score.
        images: their number; ``units``: that of their groups.
    """
    if not score < POOR:
        return ""
    many = "image" if images == 1 else "images"
    return (
        f"the model is poor on its own {images} held-out {many}: mean {name} of "
        f"{below(score, POOR)}{few_note(images, units)}, more is wrong than right"
    )


def order_note(correlation: float, groups: int) -> str:
    """That predicted scores do not tell good from bad images; "" if they do, or nothing is known.

    Args:
        correlation: rank correlation of predicted and true scores of the held-out images.
        groups: number of their groups, n.
    """
    least = max(LEAST_CORRELATION, LEAST_ERRORS / math.sqrt(max(1, groups - 1)))
    if not correlation < least:
        return ""
    how = "is negative" if correlation < 0 else f"is not clearly above 0 (it takes {least:.2f})"
    return (
        f"The rank correlation of {correlation:.2f} {how}: on the held-out images the predicted "
        "scores did not tell good from bad results, so do not choose images by them."
    )
