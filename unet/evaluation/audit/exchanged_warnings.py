"""Warnings about labels that probably belong to another image: they spoil every score."""

from __future__ import annotations

from collections.abc import Iterable

from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubts import LEVEL, Doubt

# Lines about single labels; the tables have all of them.
LINES = 5


def exchanged_warnings(audits: Iterable[tuple[AuditSummary, Iterable[Doubt]]]) -> list[str]:
    """A line for each pair of exchanged labels, or for each label of another image.

    What all models of a dataset say is one list, in which the label of each image is doubted once.
    Only doubts of a confidence of at least ``LEVEL`` count, and none of a model whose predictions
    have little in common with the labels.
    """
    found: dict[tuple[str, str], float] = {}
    models = dict[str, None]()
    for summary, doubts in audits:
        for doubt in doubts:
            if doubt.kind == "exchanged" and doubt.confidence >= LEVEL and not summary.blind:
                both = (doubt.image, doubt.match)
                found[both] = max(found.get(both, 0.0), doubt.confidence)
                models[summary.model] = None
    lines = _lines(found)
    more = len(lines) - LINES
    if more <= 0:
        return lines
    rest = f"{more} more {'lines' if more > 1 else 'line'}"
    tables = " and ".join(f"{model}/audit.csv" for model in models)
    return [*lines[:LINES], f"exchanged labels: {rest} like these, see {tables}"]


def _lines(found: dict[tuple[str, str], float]) -> list[str]:
    """The lines, by image; ``found``: (image, image that its label fits) -> confidence."""
    said: dict[str, str] = {}
    done = set[str]()
    surest = sorted(found, key=lambda both: (-found[both], both))
    for image, other in surest:
        # Also if one model says it of the first image and another one of the second.
        if (other, image) in found and not done & {image, other}:
            done |= {image, other}
            first, second = sorted((image, other))
            said[first] = (
                f"check the labels of {first} and {second}: probably exchanged; they count in all "
                "scores until corrected"
            )
    for image, other in surest:
        if image not in done:
            done.add(image)
            said[image] = (
                f"check the label of {image}: it probably belongs to {other or 'another image'}; "
                "it counts in all scores until corrected"
            )
    return [said[image] for image in sorted(said)]
