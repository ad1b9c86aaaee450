"""Reader for labels in NumPy files: plain arrays, and Cellpose's ``_seg.npy``.

A ``_seg.npy`` is a pickle, and reading a pickle the usual way runs whatever code it names. Here
only arrays and plain values can be made from it; any other name in the file refuses it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from unet.errors import UserError
from unet.io.axes import Raw
from unet.io.raw import check_pixels, lazily

Array = NDArray[Any]

# The entry of Cellpose's dictionary with the ids of the objects.
MASKS = "masks"


class _Part:
    """What stands for a function that a pickle may call. It has no attributes that the pickle could
    change."""

    __slots__ = ()


class _ArrayType(_Part):
    """Stands for the class ``numpy.ndarray``, which is only passed on."""

    __slots__ = ()


class _NewArray(_Part):
    """``numpy._core.multiarray._reconstruct``: an empty array, which then gets shape and pixels."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, dtype: Any) -> Array:
        if not isinstance(kind, _ArrayType):
            raise pickle.UnpicklingError("an array of an unknown class")
        return np.ndarray((0,), np.dtype("b"))


class _NewType(_Part):
    """``numpy.dtype``."""

    __slots__ = ()

    def __call__(self, text: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
        if not isinstance(text, str):
            raise pickle.UnpicklingError("a type of pixels that is not text")
        # A copy: the pickle sets its byte order, and NumPy's own types are shared.
        return np.dtype(text, align=bool(align), copy=True)


class _Scalar(_Part):
    """``numpy._core.multiarray.scalar``: a single number."""

    __slots__ = ()

    def __call__(self, dtype: Any, data: Any) -> Any:
        if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes):
            raise pickle.UnpicklingError("a number of an unknown type")
        return np.frombuffer(data, dtype)[0]


class _FromBuffer(_Part):
    """``numpy._core.numeric._frombuffer``: an array in pickles of protocol 5."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, shape: Any, order: Any) -> Array:
        # NumPy itself refuses types that hold objects.
        return np.frombuffer(data, dtype).reshape(shape, order=order)


class _Bytes(_Part):
    """``_codecs.encode``: bytes in pickles of early protocols."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("bytes in an unknown encoding")
        return text.encode("latin1")


class _PathText(_Part):
    """A path, as text."""

    __slots__ = ()

    def __call__(self, *parts: Any) -> str:
        return "/".join(map(str, parts))


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _NewArray(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): _ArrayType(),
    ("numpy", "dtype"): _NewType(),
    ("_codecs", "encode"): _Bytes(),
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "slice"): slice,
    ("builtins", "complex"): complex,
    **{(module, name): _PathText() for module in ("pathlib", "pathlib._local") for name in _PATHS},
}


class _PlainUnpickler(pickle.Unpickler):
    """Makes arrays and plain values only; raises UnpicklingError for any other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
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
        value = _PlainUnpickler(handle).load()
    except MemoryError:
        raise
    except Exception as error:
        # A damaged pickle can raise anything.
        raise UserError(
            f"{path}: is not read: {error}; export the masks as TIFF or PNG instead "
            "(Cellpose: --save_tif)"
        ) from None
    inside = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    labels = inside.get(MASKS) if isinstance(inside, dict) else None
    if not isinstance(labels, np.ndarray):
        raise UserError(f"{path}: has no array {MASKS!r}; is it a _seg.npy of Cellpose?")
    return labels
