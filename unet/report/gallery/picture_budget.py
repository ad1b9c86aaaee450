"""How large the pictures of the gallery may be, so that a page can be sent by mail."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Drawn = TypeVar("Drawn")

# Characters of all pictures of a gallery together (data URIs). With the cards' texts and the plots,
# the page of 100 images and 5 models stays below 15 MB.
BUDGET = 9_500_000
# At most so many pairs of an image and a model: each has its texts, too.
MOST_PAIRS = 1500
MOST_IMAGES = 300
# Sides of a panel in pixels.
LARGEST, SMALLEST = 640, 32
# Bytes per pixel of usual photographs (JPEG) and of outlines or classes (PNG), and characters per
# byte. Only a start: a picture that needs more is drawn smaller.
_PHOTO, _LABELS, _BASE64 = 0.3, 0.06, 4 / 3


def most_images(models: int) -> int:
    """The number of images that a gallery shows at most."""
    return max(10, min(MOST_IMAGES, MOST_PAIRS // max(1, models)))


def share_of(images: int) -> int:
    """The characters that the pictures of one image may take."""
    return BUDGET // max(1, images)


def usual_side(images: int, models: int) -> int:
    """The longer side of a panel, in pixels, if the pictures compress as usual."""
    per_pixel = (_PHOTO + _LABELS * (1 + 2 * models)) * _BASE64
    side = int(math.sqrt(share_of(images) / per_pixel))
    return max(SMALLEST, min(LARGEST, side // 16 * 16))


def drawn_within(
    draw: Callable[[int], Drawn], size: Callable[[Drawn], int], side: int, share: int
) -> tuple[Drawn, int]:
    """What ``draw(side)`` gives, with a side so small that its size is at most ``share``.

    Returns:
        the pictures and their side. At the smallest side they are kept whatever their size.
    """
    while True:
        drawn = draw(side)
        found = size(drawn)
        if found <= share or side <= SMALLEST:
            return drawn, side
        side = max(SMALLEST, min(side - 1, int(0.95 * side * math.sqrt(share / found))))


def shown_ranks(count: int, most: int) -> list[int]:
    """Ranks to show among 0 .. count - 1 (0 = the worst image): all, or ``most`` of them: the
    worst ones (half), the best ones (a quarter), and evenly spaced ones in between."""
    if count <= most:
        return list(range(count))
    worst, best = most // 2, most // 4
    between: Sequence[int] = range(worst, count - best)
    number = most - worst - best
    spaced = {between[int((k + 0.5) * len(between) / number)] for k in range(number)}
    return sorted({*range(worst), *spaced, *range(count - best, count)})
