"""Warnings about labels that probably belong to another image: they spoil every score."""

from __future__ import annotations

from collections.abc import Iterable

from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubts import LEVEL, Doubt

# Lines about single labels; the table has all of them.
LINES = 5


def exchanged_warnings(doubts: Iterable[Doubt], summary: AuditSummary) -> list[str]:
    """A line for each pair of exchanged labels, or for each label of another image.

    Only doubts of a confidence of at least ``LEVEL`` count, and none of a model that is too poor to
    judge labels. The lines do not name the model, so that models that agree say the same.
    """
    if summary.poor:
        return []
    match = {
        doubt.image: doubt.match
        for doubt in doubts
        if doubt.kind == "exchanged" and doubt.confidence >= LEVEL
    }
    lines = []
    for image in sorted(match):
        other = match[image]
        if match.get(other) != image:
            whose = other or "another image"
            lines.append(
                f"check the label of {image}: it probably belongs to {whose}; it counts in all "
                "scores until corrected"
            )
        elif image < other:
            lines.append(
                f"check the labels of {image} and {other}: probably exchanged; they count in all "
                "scores until corrected"
            )
    more = len(lines) - LINES
    if more <= 0:
        return lines
    rest = f"{more} more {'lines' if more > 1 else 'line'}"
    return [*lines[:LINES], f"exchanged labels: {rest} like these, see {summary.model}/audit.csv"]
