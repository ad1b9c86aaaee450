"""Reads arrays in packages of the BioImage Model Zoo that may come from anywhere."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy_format


def npy_values(content: bytes) -> np.ndarray[Any, Any]:
    """The array in a .npy file of numbers.

    Raises:
        ArithmeticError, LookupError, TypeError, ValueError: it is no such file, or claims another
            number of values than it has, for which NumPy would make room.
    """
    handle = io.BytesIO(content)
    version = npy_format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    first = version == (1, 0)
    read = npy_format.read_array_header_1_0 if first else npy_format.read_array_header_2_0
    shape, by_column, dtype = read(handle)
    if dtype.kind not in "biuf":
        raise ValueError(f"values of the type {dtype}, not numbers")
    claimed, there = math.prod(shape) * dtype.itemsize, len(content) - handle.tell()
    if min(shape, default=1) < 0 or claimed != there:
        raise ValueError(f"its header claims {list(shape)} values of {dtype.itemsize} bytes, but "
                         f"{there} bytes follow")  # fmt: skip
    values = np.frombuffer(content, dtype, offset=handle.tell())
    return values.reshape(shape, order="F" if by_column else "C")
