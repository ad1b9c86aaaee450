"""Reader for an array in a Zarr store without OME metadata, which its path names:
``a.zarr::/raw``."""

from __future__ import annotations

from pathlib import Path

from unet.errors import UserError
from unet.io.array_axes import declared_letters, declared_steps, kept_together
from unet.io.array_paths import split_inside
from unet.io.axes import Raw
from unet.io.ome_zarr_reader import ZarrSource, check_store, locate_chunks, open_level
from unet.io.pixel_size import read_sizes
from unet.io.raw import check_pixels, lazily
from unet.io.zarr_metadata import is_zarr

# Arrays that a message lists.
_SHOWN = 6


def read_zarr_array(path: Path, *, label: bool = False) -> Raw:
    """Opens the array that the path names (Zarr 2 or 3).

    Raises:
        UserError: there is no such array, or it is damaged.
    """
    store, inside = split_inside(path)
    folder = store / inside
    if not any((folder / name).is_file() for name in (".zarray", "zarr.json")):
        found = [p for p in sorted(store.iterdir()) if p.is_dir() and is_zarr(p)]
        there = ", ".join(f"/{p.name}" for p in found[:_SHOWN]) or "nothing"
        raise UserError(f"{path}: no array {inside!r} in the store; it has {there}")
    array = open_level(store, inside)
    check_pixels(path, array.shape)
    check_store(path, folder, array)
    array, warnings = locate_chunks(path, folder, array, label=label)
    attributes = dict(array.attrs)
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    letters = declared_letters(path, attributes, [str(n or "") for n in names or ()], array.ndim)
    sizes, told = read_sizes(declared_steps(attributes), letters)
    return Raw(
        lazily(ZarrSource(path, array), kept_together(array.chunks, array.shape, letters)),
        letters,
        sizes,
        warnings=warnings,
        size_warnings=told,
        together=True,
    )
