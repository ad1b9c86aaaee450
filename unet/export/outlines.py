"""Outlines of labelled objects along the edges of their pixels, exact, from blocks of the image.

A pixel (y, x) is the square from (x, y) to (x + 1, y + 1), so the area of an outline equals the
object's number of pixels. Outlines are straight between two corners, so only the corners are
collected. A vertex of the pixel grid is a corner of an object if one or three of the four pixels
around it belong to the object. It is two corners if two of the pixels do and they touch only at
this vertex. Each vertex belongs to one block, so the corners of all blocks are those of the image,
and memory holds one block and the corners of the objects that are not complete yet.

On every horizontal line of the grid an object's corners come in pairs, the left and right end of an
edge, and likewise on every vertical line. Following the pairs, alternately in both directions,
gives the rings (a known way to assemble rectilinear polygons: O'Rourke 1988, "Uniqueness of
orthogonal connect-the-dots").
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.tiling import Slices
from unet.export.object_sums import read_around

Ints = NDArray[np.int64]
# Vertices [n, 2] as x, y, the first not repeated at the end.
Ring = Ints
# An outer ring, then the rings around its holes.
Polygon = list[Ring]

OUTLINE_BLOCK = 2048
# Bits of the four pixels around a vertex: NW 1, NE 2, SW 4, SE 8. One or three bits make a corner.
_ODD = np.array([bits.bit_count() % 2 == 1 for bits in range(16)])
_FALLING, _RISING = 0b1001, 0b0110


@dataclass(frozen=True, eq=False)
class Corners:
    """Corners of objects, in the order of ``label``, ``y``, ``x``, ``right``.

    Attributes:
        label: int64 [n].
        y, x: int64 [n], the vertex; (0, 0) is the upper left corner of the first pixel.
        right: bool [n], for two corners at one vertex: whether this one has the edge to the right.
        down: bool [n], the same for the edge downwards.
        inside: bool [n], whether the pixel to the lower right belongs to the object.
    """

    label: Ints
    y: Ints
    x: Ints
    right: NDArray[np.bool_]
    down: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.label)

    def part(self, which: NDArray[Any]) -> Corners:
        """Some of the corners, in the order of ``which`` (indices or a mask)."""
        return Corners(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Corners]) -> Corners:
        """All corners together, in order."""
        names = [field.name for field in fields(Corners)]
        one = Corners(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
        return one.part(np.lexsort((one.right, one.x, one.y, one.label)))


def vertex_blocks(shape: Sequence[int], block: int = OUTLINE_BLOCK) -> list[Slices]:
    """Blocks of the vertices of an image [Y, X], which has one more vertex than pixels per axis."""
    spans = [[slice(a, min(a + block, n + 1)) for a in range(0, n + 1, block)] for n in shape]
    return list(product(*spans))


def corners(
    read: Callable[[Slices], NDArray[Any]], shape: Sequence[int], vertices: Slices
) -> Corners:
    """The corners of all objects at some vertices.

    Args:
        read: returns a region of the labels [Y, X], integers, 0 = background.
        shape: of the labels.
        vertices: one of :func:`vertex_blocks`.
    """
    # The pixels on all four sides of each vertex.
    labels = read_around(read, shape, tuple(slice(v.start, v.stop - 1) for v in vertices))
    around = (labels[:-1, :-1], labels[:-1, 1:], labels[1:, :-1], labels[1:, 1:])
    busy = around[0] != around[1]
    for other in around[2:]:
        busy |= around[0] != other
    # Much faster on a flat array than np.nonzero.
    y, x = np.unravel_index(np.flatnonzero(busy), busy.shape)
    four = np.stack([pixels[y, x] for pixels in around])
    y, x = y + vertices[0].start, x + vertices[1].start
    parts = []
    for k, label in enumerate(four):
        bits = np.zeros(len(label), np.uint8)
        for bit, other in enumerate(four):
            bits |= (other == label).astype(np.uint8) << np.uint8(bit)
        # Handles each object at a vertex once, with the first of its pixels.
        own = (label > 0) & (bits & (2**k - 1) == 0)
        parts += _corners_of(label.astype(np.int64), y, x, bits, own)
    return Corners.joined(parts)


def _corners_of(
    label: Ints, y: Ints, x: Ints, bits: NDArray[np.uint8], own: NDArray[np.bool_]
) -> list[Corners]:
    inside = bits & 8 > 0
    either = np.ones(len(label), np.bool_)
    single = own & _ODD[bits]
    # A single corner fits both ends, so right and down only matter for two corners at one vertex.
    found = [Corners(label, y, x, either, either, inside).part(single)]
    for pattern in (_FALLING, _RISING):
        two = own & (bits == pattern)
        for right in (False, True):
            # Each pixel keeps its own corner: upper left and lower right, or the other two.
            down = right if pattern == _FALLING else not right
            ends = (np.full(len(label), right), np.full(len(label), down))
            lower_right = np.full(len(label), right and down)
            found.append(Corners(label, y, x, *ends, lower_right).part(two))
    return found


def completed(
    parts: Iterable[Corners],
    blocks: Sequence[Slices],
    labels: Ints,
    high: Ints,
) -> Iterator[tuple[int, list[Polygon]]]:
    """The outlines of all objects, each as soon as the last of its blocks is done.

    Args:
        parts: the corners in each of ``blocks``, in the same order.
        blocks: from :func:`vertex_blocks`.
        labels: [n], sorted; all labels of the image.
        high: [n, 2], last pixel of each object along Y and X.

    Yields:
        Label and polygons, in an order that depends only on the image and the blocks.
    """
    starts = [np.unique([block[axis].start for block in blocks]) for axis in (0, 1)]
    # The block with an object's last vertex comes after all other blocks that the object touches.
    row, column = (
        np.searchsorted(starts[axis], high[:, axis] + 1, side="right") - 1 for axis in (0, 1)
    )
    last = row * len(starts[1]) + column
    waiting: dict[int, list[Corners]] = {}
    for number, part in enumerate(parts):
        ends = last[np.searchsorted(labels, part.label)]
        for end in np.unique(ends).tolist():
            waiting.setdefault(end, []).append(part.part(ends == end))
        complete = waiting.pop(number, [])
        if complete:
            yield from polygons(Corners.joined(complete))


def polygons(found: Corners) -> Iterator[tuple[int, list[Polygon]]]:
    """Label and outlines of the objects; ``found`` must contain all of their corners.

    Each part of an object that is connected by pixel sides is one polygon: a ring around it and one
    around each of its holes. No ring passes a point twice; rings may touch in points. The shoelace
    formula (on x, y) gives a positive area for outer rings, as RFC 7946 requires, and a negative
    one for holes.
    """
    if not len(found):
        return
    down = np.lexsort((found.down, found.y, found.x, found.label))
    vertical = np.empty(len(found), np.int64)
    vertical[down[::2]], vertical[down[1::2]] = down[1::2], down[::2]
    order, starts = _split(found, *_traced(vertical, found.inside))
    x, y, label = found.x[order], found.y[order], found.label[order[starts]]
    areas = _areas(x, y, starts)
    ends = np.append(starts[1:], len(order))
    points = np.stack([x, y], axis=1)
    # Split rings are not next to the other rings of their label yet.
    by_label = np.argsort(label, kind="stable")
    firsts = np.flatnonzero(np.diff(label[by_label], prepend=-1))
    for members in np.split(by_label, firsts[1:]):
        rings = [points[starts[i] : ends[i]] for i in members.tolist()]
        yield int(label[members[0]]), _polygons_of(rings, areas[members])


def _traced(vertical: Ints, inside: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Corners in the order of the rings, and the position in this order where each ring starts.

    A ring starts at its first corner, the leftmost of its uppermost ones, and the object is always
    to the right of the ring's direction (with y pointing down): an outer ring first runs to the
    right along the upper edge, a ring around a hole first runs down.
    """
    # Python's own arrays are small, and fast to read one element at a time.
    partner, seen = array("q", vertical.tobytes()), bytearray(len(vertical))
    order, starts = array("q"), array("q")
    for first, across in enumerate(inside.tolist()):
        if seen[first]:
            continue
        starts.append(len(order))
        at = first
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            # On a horizontal line, consecutive corners form a pair.
            at = at ^ 1 if across else partner[at]
            across = not across
    return np.array(order, np.int64), np.array(starts, np.int64)


def _split(found: Corners, order: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Splits each ring that passes a point twice into rings that touch there."""
    ring = np.empty(len(found), np.int64)
    ring[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    # Two corners at one vertex are next to each other.
    twice = (np.diff(found.x) == 0) & (np.diff(found.y) == 0) & (np.diff(found.label) == 0)
    again = np.unique(ring[:-1][twice & (ring[:-1] == ring[1:])])
    if not len(again):
        return order, starts
    ends = np.append(starts[1:], len(order))
    whole = np.ones(len(starts), np.bool_)
    whole[again] = False
    loops = [order[a:b] for a, b in zip(starts[whole], ends[whole], strict=True)]
    for i in again.tolist():
        loops += _split_ring(order[starts[i] : ends[i]], found)
    lengths = [len(loop) for loop in loops]
    return np.concatenate(loops), np.cumsum([0, *lengths[:-1]]).astype(np.int64)


def _split_ring(ring: Ints, found: Corners) -> list[Ints]:
    loops, path = [], list[int]()
    at: dict[tuple[int, int], int] = {}
    points = zip(found.y[ring].tolist(), found.x[ring].tolist(), strict=True)
    keys: list[tuple[int, int]] = []
    for corner, point in zip(ring.tolist(), points, strict=True):
        if point in at:
            back = at[point]
            loops.append(np.array(path[back:], np.int64))
            for left in keys[back:]:
                del at[left]
            del path[back:], keys[back:]
        at[point] = len(path)
        path.append(corner)
        keys.append(point)
    return [*loops, np.array(path, np.int64)]


def _areas(x: Ints, y: Ints, starts: Ints) -> Ints:
    """Area of each ring by the shoelace formula; negative for rings in the other direction."""
    after = _after(starts, len(x))
    # Relative to the first corner, so that products stay small.
    lengths = np.diff(starts, append=len(x))
    x, y = x - np.repeat(x[starts], lengths), y - np.repeat(y[starts], lengths)
    return np.asarray(np.add.reduceat(x * y[after] - x[after] * y, starts) // 2, np.int64)


def _after(starts: Ints, number: int) -> Ints:
    """Index of the next corner along the ring, for each corner."""
    after = np.arange(1, number + 1)
    after[np.append(starts[1:], number) - 1] = starts
    return after


def _polygons_of(rings: list[Ring], areas: Ints) -> list[Polygon]:
    """Combines the rings of one object into polygons."""
    outer = np.flatnonzero(areas > 0)
    if len(outer) == 1:
        (first,) = outer
        return [[rings[first], *(ring for i, ring in enumerate(rings) if i != first)]]
    if len(outer) == len(rings):
        return [[ring] for ring in rings]
    part = _parts(rings)
    found: dict[int, Polygon] = {int(part[i]): [rings[i]] for i in outer}
    for i in np.flatnonzero(areas < 0):
        found[int(part[i])].append(rings[i])
    return list(found.values())


def _parts(rings: list[Ring]) -> Ints:
    """Number of the connected part that each ring of an object belongs to.

    In every row of pixels the vertical edges come in pairs, the left and right end of a run of
    pixels. The rings at both ends bound the same part.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    lengths = np.array([len(ring) for ring in rings])
    x, y = np.concatenate(rings).T
    end = y[_after(np.cumsum(lengths) - lengths, len(y))]
    low, high = np.minimum(y, end), np.maximum(y, end)
    # Repeats each vertical edge for every row that it spans; horizontal edges span none.
    edge = np.repeat(np.arange(len(y)), high - low)
    row = (
        low[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high + low, high - low)
    )
    owner = np.repeat(np.arange(len(rings)), lengths)[edge][np.lexsort((x[edge], row))]
    pairs = (np.ones(len(owner) // 2, np.bool_), (owner[::2], owner[1::2]))
    _, part = connected_components(coo_array(pairs, shape=(len(rings),) * 2), directed=False)
    return np.asarray(part, np.int64)
