"""How many independent test images (or groups of them) a comparison needs; the check before a run
and the results both ask here. Light."""

from __future__ import annotations

from itertools import count


def enough(units: int, confidence: float) -> bool:
    """Whether a test with this many units can find anything. With fewer units even a difference of
    the same sign in all of them is not significant (two of all 2^units flips; 0.06 for five)."""
    return 2.0 ** (1 - units) <= 1 - confidence + 1e-12


def least_units(confidence: float) -> int:
    """The smallest number of units that is :func:`enough`, for a confidence from 0 to below 1."""
    return next(units for units in count(1) if enough(units, confidence))
