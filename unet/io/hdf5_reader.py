"""Reader for an array in an HDF5 file, which its path names: ``a.h5::/raw``."""

from __future__ import annotations

import math
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.errors import UserError, one_line
from unet.files import check_regular
from unet.io.array_axes import declared_letters, declared_steps, kept_together
from unet.io.array_paths import split_inside
from unet.io.axes import Raw
from unet.io.pixel_size import read_sizes
from unet.io.raw import check_claim, check_pixels, lazily, needed

Array = NDArray[Any]

# Largest size of a decoded chunk in bytes: HDF5 reads chunks as a whole.
MAX_CHUNK = 1 << 31
# Arrays that a message lists, and entries that are looked at for them.
_SHOWN, _LOOKED_AT = 6, 2000


class Hdf5Source:
    """An array in an HDF5 file that can be sliced. The file is opened on first use, closed with the
    object, and opened again after unpickling."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any) -> None:
        self.path = path
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self._lock = threading.Lock()
        self._array: Any = None

    def __getitem__(self, region: Any) -> Array:
        try:
            with self._lock:
                if self._array is None:
                    file, inside = split_inside(self.path)
                    handle = _opened(file)
                    weakref.finalize(self, handle.close)
                    self._array = handle[inside]
                return np.asarray(self._array[region])
        except (UserError, MemoryError):
            raise
        except Exception as error:
            text = one_line(error, 200)
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.shape, self.dtype)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _opened(file: Path) -> Any:
    # Without a lock, since the file may lie where nobody can write.
    return needed(file, "h5py", "h5py").File(file, "r", locking=False)


def read_hdf5(path: Path, *, label: bool = False) -> Raw:
    """Opens the array that the path names.

    Raises:
        UserError: it names none, there is no such array, it has no numbers, or its values are not
            in this file.
    """
    file, inside = split_inside(path)
    if not inside:
        raise unnamed(file)
    h5py = needed(file, "h5py", "h5py")
    with _opened(file) as handle:
        array = handle.get(inside)
        if not isinstance(array, h5py.Dataset):
            raise UserError(f"{path}: no array {inside!r} in the file; it has {_listed(handle)}")
        if array.file.filename != handle.filename or array.is_virtual or array.external:
            raise UserError(f"{path}: its values are in another file; save a copy with them inside")
        if array.dtype.kind not in "buif" or array.ndim < 2:
            raise UserError(
                f"{path}: {array.ndim} axes of type {array.dtype}; an image has 2 or more, of "
                f"numbers. The file has {_listed(handle)}"
            )
        shape, dtype, chunks = tuple(map(int, array.shape)), array.dtype, array.chunks
        check_pixels(path, shape)
        stored = int(array.id.get_storage_size())
        if not stored and not label:
            raise UserError(f"{path}: no value of this array is stored")
        warnings = () if stored else ("the array has no stored values, so all are 0",)
        check_claim(path, shape, dtype.itemsize, stored=stored or file.stat().st_size)
        if math.prod(chunks or ()) * dtype.itemsize > MAX_CHUNK:
            size = " x ".join(map(str, chunks))
            raise UserError(f"{path}: chunks of {size} values; save the array with smaller ones")
        attributes = {name: array.attrs[name] for name in array.attrs}
        labels = [str(one.label) for one in array.dims]
    letters = declared_letters(path, attributes, labels, len(shape))
    sizes, told = read_sizes(declared_steps(attributes), letters)
    source = Hdf5Source(path, shape, dtype)
    return Raw(
        lazily(source, kept_together(chunks, shape, letters)),
        letters,
        sizes,
        warnings=warnings,
        size_warnings=told,
        together=True,
    )


def unnamed(file: Path) -> UserError:
    """The error for a path that names no array in an HDF5 file."""
    try:
        check_regular(file)
        with _opened(file) as handle:
            there = _listed(handle)
    except UserError as error:
        return error
    except Exception as error:
        return UserError(f"{file}: cannot be read ({one_line(error, 200)})")
    return UserError(
        f"{file}: an HDF5 file, so write which array of it, such as dir/*{file.suffix}::/raw; it "
        f"has {there}"
    )


def _listed(handle: Any) -> str:
    """The arrays in a file, with their shapes."""
    import h5py

    found: list[str] = []
    looked_at = 0

    def visit(name: str, entry: Any) -> bool | None:
        nonlocal looked_at
        looked_at += 1
        if isinstance(entry, h5py.Dataset):
            found.append(f"/{name} ({' x '.join(map(str, entry.shape or ()))} {entry.dtype})")
        # Anything but None ends the visit.
        return True if len(found) > _SHOWN or looked_at > _LOOKED_AT else None

    handle.visititems(visit)
    more = ", ..." if len(found) > _SHOWN or looked_at > _LOOKED_AT else ""
    return f"{', '.join(found[:_SHOWN])}{more}" if found else "no arrays"
