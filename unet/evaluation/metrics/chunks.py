"""Ways to process the pixels of a block fast: by runs of equal labels, or in chunks.

NumPy writes each intermediate result to memory. With chunks that fit the processor's cache it stays
there, which is several times faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 15


def chunks(number: int) -> Iterator[slice]:
    """Slices that cover ``number`` pixels in order."""
    return (slice(start, start + CHUNK) for start in range(0, number, CHUNK))


def runs(*arrays: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Starts and lengths of the runs of pixels in which each of the flat arrays is constant.

    Objects are wide, so there are far fewer runs than pixels.
    """
    first, *others = arrays
    if not first.size:
        return np.empty(0, np.intp), np.empty(0, np.int64)
    new = first[1:] != first[:-1]
    for other in others:
        new |= other[1:] != other[:-1]
    starts = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(new) + 1])
    return starts, np.diff(starts, append=first.size).astype(np.int64)


def kept(mask: NDArray[np.bool_], *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The pixels of each array [.., *shape of the mask] where the mask is True, flat along these
    axes; without a copy if it is True everywhere."""
    if mask.all():
        return tuple(array.reshape(*array.shape[: array.ndim - mask.ndim], -1) for array in arrays)
    return tuple(array[..., mask] for array in arrays)
