"""Chooses the parts of images that a report shows, and their scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unet.report import collect, overlays
from unet.report.cuts import Cut
from unet.report.overlays import OverlayView

# With more overlays than this the panels are smaller, so that the file is only a few MB.
MANY_OVERLAYS = 12
DETAIL = 512


@dataclass(frozen=True)
class Overlay:
    """A picked image with its panels; ``note`` describes the part and its scale."""

    pick: collect.Pick
    note: str
    panels: list[overlays.Panel]


def overlays_of_plane(
    view: Callable[[collect.Window | None], OverlayView | None],
    task: str,
    pick: collect.Pick,
    side: int,
    cut: Cut | None,
) -> list[Overlay]:
    """The whole plane and, if it is too large to show details, its worst part, too.

    Args:
        view: reads the plane, or a window of it; None if it cannot be read.
    """
    whole = view(None)
    if whole is None:
        return []
    name = "" if cut is None else cut.note
    height, width = (size * whole.stride for size in whole.truth.shape)
    if max(height, width) <= 2 * side or (cut is not None and cut.axis > 0):
        return [Overlay(pick, name, overlays.panels(whole, task, side))]
    step = whole.stride
    y, x = overlays.worst_window(overlays.errors(whole, task), DETAIL // step)
    window = (y * step, x * step, DETAIL)
    detail = view(window)
    name = f"{name}, " if name else ""
    found = [Overlay(pick, f"{name}whole image, reduced", overlays.panels(whole, task, side))]
    if detail is not None:
        what = "errors" if whole.labelled else "foreground"
        corner = f"{DETAIL} px from y = {window[0]}, x = {window[1]}"
        note = f"{name}detail with the most {what}, {corner}"
        found.append(Overlay(pick, note, overlays.panels(detail, task, side)))
    return found
