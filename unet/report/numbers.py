"""Formats a score for people. Scores that look the same count as equal in the report."""

from __future__ import annotations

import math

NO_VALUE = "–"
# Anything smaller is shown as 0.
NOTHING = 5e-5


def number(value: float) -> str:
    """Formats a score: three decimals, three digits below 0.1, fewer decimals for large numbers.

    The ends of an interval may be as small as 1e-8: shown as 0, since no one can use such decimals.
    """
    if math.isnan(value):
        return NO_VALUE
    size = abs(value)
    if size < NOTHING:
        return "0.000"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.0995 else f"{value:#.3g}"
