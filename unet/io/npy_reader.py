"""Reader for labels in NumPy files: plain arrays, and Cellpose's ``_seg.npy``.

A ``_seg.npy`` is a pickle, and reading a pickle the usual way runs whatever code it names. Here it
only notes what the file says about its arrays, in classes of this module; NumPy's own classes take
their inner state from a pickle unchecked. The one array that is needed is then made from checked
values. All other values but text, numbers and containers become None.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from unet.errors import UserError, one_line
from unet.io.axes import Raw
from unet.io.raw import MAX_PIXELS, check_pixels, lazily

Array = NDArray[Any]

# The entry of Cellpose's dictionary with the ids of the objects.
MASKS = "masks"
# Most steps of a pickle: each makes at most a small object. Files of Cellpose have some hundreds,
# and some dozens more for each object that was edited by hand.
MOST_STEPS = 5_000_000
_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
# Steps that keep a value at a numbered place.
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
# What follows version and byte order in the state of a plain number; version 4 adds metadata.
_PLAIN = {3: (None, None, None, -1, -1, 0), 4: (None, None, None, -1, -1, 0, None)}


class _Part:
    """What stands for a function that a pickle may call. It has no attributes that the pickle could
    change."""

    __slots__ = ()


class _Noted(_Part):
    """What stands for a value that a pickle makes.

    ``made_with``: the arguments; ``state``: what the pickle sets afterwards. Both are unchecked.
    """

    __slots__ = ("made_with", "state")

    def __init__(self, *made_with: Any) -> None:
        self.made_with = made_with
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        # Without this method, the pickle could set any attribute.
        self.state = state


class _NotedType(_Noted):
    """A ``numpy.dtype``: made with its name (``u2``), an alignment and whether it is a copy."""

    __slots__ = ()


class _NotedArray(_Noted):
    """An array: its state is a version, the shape, the type, whether it is in Fortran's order, and
    the bytes of the pixels, or a list of objects."""

    __slots__ = ()


class _NotedBytes(_Noted):
    """Bytes as text, in pickles of early protocols."""

    __slots__ = ()


class _ArrayType(_Part):
    """Stands for the class ``numpy.ndarray``, which is only passed on."""

    __slots__ = ()


class _NewArray(_Part):
    """``numpy._core.multiarray._reconstruct``: an empty array, which then gets shape and pixels."""

    __slots__ = ()

    def __call__(self, *_: Any) -> _NotedArray:
        return _NotedArray()


class _NewType(_Part):
    """``numpy.dtype``."""

    __slots__ = ()

    def __call__(self, *made_with: Any) -> _NotedType:
        return _NotedType(*made_with)


class _FromBuffer(_Part):
    """``numpy._core.numeric._frombuffer``: an array in pickles of protocol 5."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, shape: Any, order: Any) -> _NotedArray:
        array = _NotedArray()
        array.state = (1, shape, dtype, order == "F", data)
        return array


class _Bytes(_Part):
    """``_codecs.encode``: bytes in pickles of early protocols."""

    __slots__ = ()

    def __call__(self, *made_with: Any) -> _NotedBytes:
        return _NotedBytes(*made_with)


class _Unneeded(_Part):
    """A value that masks do not need: a path, a single number, a set."""

    __slots__ = ()

    def __call__(self, *_: Any) -> None:
        # Made as what it is, a small file could fill the memory: a path of a path of a path.
        return None


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_VALUES = ("set", "frozenset", "slice", "complex", "bytes", "bytearray")
_ALLOWED: dict[tuple[str, str], _Part] = {
    ("numpy.core.multiarray", "_reconstruct"): _NewArray(),
    ("numpy.core.multiarray", "scalar"): _Unneeded(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): _ArrayType(),
    ("numpy", "dtype"): _NewType(),
    ("_codecs", "encode"): _Bytes(),
    **{(module, name): _Unneeded() for module in ("builtins", "__builtin__") for name in _VALUES},
    **{(module, name): _Unneeded() for module in ("pathlib", "pathlib._local") for name in _PATHS},
}


class _PlainUnpickler(pickle.Unpickler):
    """Notes arrays and makes plain values; raises UnpicklingError for any other name."""

    def find_class(self, module_name: str, global_name: str, /) -> _Part:
        # NumPy 2 renamed its inner module.
        key = (module_name.replace("numpy._core", "numpy.core"), global_name)
        if key not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it names {module_name}.{global_name}, which is neither an array nor a plain "
                "value and could run code"
            )
        return _ALLOWED[key]


def read_npy(path: Path) -> Raw:
    """Opens labels [(Z,) Y, X] from a ``_seg.npy`` (its entry ``masks``) or a plain array.

    A plain array is read in parts; of a ``_seg.npy`` the whole file is read, one image.

    Raises:
        UserError: it holds anything but arrays and plain values, or no labels.
    """
    with path.open("rb") as handle:
        try:
            is_pickle = _dtype(handle).hasobject
        except ValueError as error:
            raise UserError(f"{path}: not a NumPy file, or cut short ({error})") from None
        labels = _masks(path, handle) if is_pickle else None
    if labels is None:
        labels = np.load(path, mmap_mode="r", allow_pickle=False)
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: an array of shape {labels.shape} and type {labels.dtype}; labels need "
            "[Y, X] or [Z, Y, X] and whole numbers"
        )
    check_pixels(path, labels.shape)
    return Raw(array=lazily(labels, labels.shape), axes="ZYX"[-labels.ndim :])


def _dtype(handle: BinaryIO) -> np.dtype[Any]:
    """The type in the file's header; the position is then at the start of the data."""
    major, minor = npy_format.read_magic(handle)
    read: Any = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }.get((major, minor))
    if read is None:
        raise ValueError(f"version {major}.{minor} of the format")
    found: np.dtype[Any] = read(handle)[2]
    return found


def _masks(path: Path, handle: BinaryIO) -> Array:
    """The entry ``masks`` of a pickled dictionary."""
    try:
        # A map never reads more than the file has, whatever length the file claims.
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            start = handle.tell()
            mapped.seek(start)
            _check_steps(mapped)
            mapped.seek(start)
            value = _PlainUnpickler(mapped).load()
        inside = _only_object(value) if isinstance(value, _NotedArray) else value
        noted = inside.get(MASKS) if isinstance(inside, dict) else None
        labels = _made(noted) if isinstance(noted, _NotedArray) else None
    except MemoryError:
        raise
    except Exception as error:
        # A damaged pickle can raise anything.
        raise UserError(
            f"{path}: is not read: {one_line(error, 200)}; export the masks as TIFF or PNG instead "
            "(Cellpose: --save_tif)"
        ) from None
    if labels is None:
        raise UserError(f"{path}: has no array {MASKS!r}; is it a _seg.npy of Cellpose?")
    return labels


def _check_steps(steps: Any) -> None:
    """Goes through the steps of a pickle, without taking any, before Python's reader trusts them.

    Raises:
        ValueError: one claims more bytes than there are, or a place in the memory that only many
            more steps could fill (the reader would make room up to it); or there are too many.
    """
    for number, (opcode, argument, _) in enumerate(pickletools.genops(steps)):
        place = argument if opcode.name in _PUTS and isinstance(argument, int) else 0
        if not 0 <= place <= number:
            raise ValueError(f"a place in the memory beyond its steps ({place})")
        if number > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS} steps")


def _state(array: _NotedArray) -> tuple[Any, ...]:
    state = array.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise pickle.UnpicklingError("an array without shape and pixels")
    return state


def _only_object(array: _NotedArray) -> Any:
    """The object of an array that holds a single one, otherwise None."""
    _, _, dtype, _, found = _state(array)
    is_objects = isinstance(dtype, _NotedType) and dtype.made_with[:1] in (("O8",), ("O4",))
    return found[0] if is_objects and isinstance(found, list) and len(found) == 1 else None


def _made(array: _NotedArray) -> Array:
    """The array of numbers, after all that the file says about it was checked."""
    _, shape, noted, fortran, data = _state(array)
    dtype = _number_type(noted)
    if isinstance(data, _NotedBytes):
        data = _decoded(data)
    known = isinstance(shape, tuple) and len(shape) <= 8
    if not known or any(type(n) is not int or not 0 <= n <= MAX_PIXELS for n in shape):
        raise pickle.UnpicklingError(f"an array {MASKS!r} without a shape")
    if not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError(f"an array {MASKS!r} without pixels")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise pickle.UnpicklingError(
            f"{len(data)} bytes of pixels for the shape {shape} and the type {dtype}"
        )
    # Bytes beside 0 and 1 are no valid bool.
    flat = np.frombuffer(data, np.uint8) != 0 if dtype.kind == "b" else np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran is True or fortran == 1 else "C")


def _number_type(noted: Any) -> np.dtype[Any]:
    """The type, of plain numbers alone."""
    name = noted.made_with[0] if isinstance(noted, _NotedType) and noted.made_with else None
    found = _NUMBERS.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        kind = f"type {name!r:.40}" if isinstance(name, str) else "an unknown type"
        raise pickle.UnpicklingError(
            f"its array {MASKS!r} has pixels of {kind}; labels need whole numbers"
        )
    match noted.state:
        case None:
            return np.dtype(found[0])
        case (3 | 4 as version, "<" | ">" | "=" | "|" as order, *rest) if (
            tuple(rest) == _PLAIN[version]
        ):
            return np.dtype(f"{order}{found[1]}")
    raise pickle.UnpicklingError(f"its array {MASKS!r} has pixels of an unknown type")


def _decoded(noted: _NotedBytes) -> bytes:
    match noted.made_with:
        case (str(text), "latin1" | "latin-1"):
            return text.encode("latin1")
    raise pickle.UnpicklingError("bytes in an unknown encoding")
