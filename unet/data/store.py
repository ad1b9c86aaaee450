"""The prepared store: one zarr v3 group per image, which appears whole or not at all.

It is a folder or, for a small image of a large dataset, a zip file (:mod:`unet.io.zipped_images`).

A group contains ``image`` float32 [C, (Z,) Y, X], ``classes`` uint8 [(Z,) Y, X] (255 = ignore) and
``instances`` uint32 [(Z,) Y, X] (0 = background). If an image was resampled for a model that is
applied to it, ``image`` is on the model's pixel grid; the labels and ``own``, the same image before
resampling, are on the image's own grid. A chunk is a tile with all channels (in volumes, several
sections of a smaller tile) and ends with its checksum (:mod:`unet.io.checksums`). A shard (one
file) is a square of tiles. The attribute ``key`` is a hash of everything that determines the
arrays.

The store of a dataset that joins others has no images of its own: it names the stores of its
members, and :class:`Prepared` reads theirs, so nothing is copied.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from unet.data.joined_stores import MEMBERS, OF_MEMBER, member_id, stores_of
from unet.errors import UserError
from unet.files import remove, replacing
from unet.io.checksums import CHECKSUM, COMPLETE, FLAT
from unet.io.zipped_images import (
    PLAIN,
    StoredImage,
    image_names,
    new_hierarchy,
    store_of,
    update_attributes,
)

log = logging.getLogger(__name__)

# Sections of a volume per chunk: a chunk of tile^3 voxels would be half a gigabyte.
CHUNK_DEPTH = 8
# Sides of a volume's chunks are multiples of this.
CHUNK_STEP = 16
# The image as it was before it was resampled.
OWN = "own"
# The attribute of an image whose pixels without a label are unknown (255 in `classes`).
UNLABELLED_ARE = {"unlabelled": "ignore"}


@dataclass(frozen=True)
class Layout:
    """Chunk and shard along an array's spatial axes ((Z,) Y, X), in pixels.

    ``shard`` is a multiple of ``chunk`` along each axis, and the unit of writing.
    """

    chunk: tuple[int, ...]
    shard: tuple[int, ...]


def layout_of(shape: tuple[int, ...], tile: int, shard: int) -> Layout:
    """The layout for an image of spatial shape ((Z,) Y, X): tiles, with ``shard`` of them per side.

    The chunk of a volume has about as many voxels as a tile has pixels, in ``CHUNK_DEPTH``
    sections: a patch is deep and narrow, so reading it from whole tiles would decode much more than
    it needs. The chunk is cut to the image's size, and the shard to the number of chunks.
    """
    tiles: tuple[int, ...] = (shard, shard)
    wanted: tuple[int, ...] = (tile, tile)
    if len(shape) == 3:
        side = max(1, round(tile / CHUNK_DEPTH**0.5 / CHUNK_STEP)) * CHUNK_STEP
        tiles, wanted = (1, shard, shard), (CHUNK_DEPTH, side, side)
    chunk = tuple(min(w, size) for w, size in zip(wanted, shape, strict=True))
    number = [min(n, -(-s // c)) for n, s, c in zip(tiles, shape, chunk, strict=True)]
    return Layout(chunk, tuple(n * c for n, c in zip(number, chunk, strict=True)))


@contextmanager
def new_image(store: Path, image: str, zipped: bool = False) -> Iterator[zarr.Group]:
    """A group to fill; it takes the image's name when the block ends without an error.

    Args:
        zipped: it is collected in memory and becomes a zip file.
    """
    with new_hierarchy(store / image, PLAIN if zipped else None) as place:
        yield zarr.open_group(store_of(place), mode="w", zarr_format=3)


def add_image(
    group: zarr.Group, channels: int, shape: tuple[int, ...], layout: Layout, name: str = "image"
) -> Any:
    """Creates the array ``name``, float32 [channels, *shape]."""
    # Level 1 of lz4 with byte shuffling: on normalised microscopy images (whose low mantissa bits
    # are noise) higher levels and zstd compress no better and take twice as long.
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
    whole = Layout((channels, *layout.chunk), (channels, *layout.shard))
    return _create(group, name, "float32", (channels, *shape), whole, codec)


def add_labels(
    group: zarr.Group, name: str, dtype: str, shape: tuple[int, ...], layout: Layout
) -> Any:
    """Creates a label array ``name`` of the spatial ``shape``; pixels not written are 0."""
    return _create(group, name, dtype, shape, layout, ZstdCodec(level=1))


def _create(
    group: zarr.Group, name: str, dtype: str, shape: tuple[int, ...], layout: Layout, codec: Any
) -> Any:
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=layout.chunk,
        # With one chunk per shard, the shard's index would be useless.
        shards=layout.shard if layout.shard != layout.chunk else None,
        compressors=(codec, CHECKSUM),
        chunk_key_encoding=FLAT,
        fill_value=0,
        config=COMPLETE,
    )


def clean(store: Path, keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Creates the store if needed, and removes unfinished, stale and unwanted images.

    Args:
        keys: id of each wanted image -> the key that its group must have to stay.

    Returns:
        The images that stay as they are, each with its attributes.
    """
    store.mkdir(parents=True, exist_ok=True)
    # The store is a group, too, so that viewers can open it as a whole.
    group = zarr.open_group(store, mode="a", zarr_format=3)
    # The dataset may have joined others before it had images of its own.
    group.attrs.pop(MEMBERS, None)
    kept: dict[str, dict[str, Any]] = {}
    for path in sorted(store.iterdir()):
        if path.name.startswith("."):
            remove(path)
        elif path.is_dir() or path.suffix == PLAIN:
            name = path.name if path.is_dir() else path.stem
            attrs = _attrs(store / name) if name in keys else {}
            if name in keys and name not in kept and attrs.get("key") == keys[name]:
                kept[name] = attrs
            else:
                remove(path)
    return kept


def _attrs(path: Path) -> dict[str, Any]:
    """The attributes of an image's group; empty if it cannot be read."""
    try:
        return StoredImage(path).attributes()
    except (OSError, ValueError, KeyError, UserError) as error:
        log.warning("%s: not a usable image (%s), prepared again", path, error)
        return {}


def update_attrs(store: Path, image: str, attrs: Mapping[str, Any]) -> None:
    """Changes attributes of an existing image; its arrays stay as they are."""
    update_attributes(store / image, attrs)


def join_stores(store: Path, members: Mapping[str, Path]) -> None:
    """Writes a store that stands for the images of others.

    Args:
        store: its path; what is there is replaced.
        members: name -> store.
    """
    # Relative, so that an output folder can be moved.
    named = {name: os.path.relpath(path, store) for name, path in members.items()}
    with replacing(store) as temporary:
        temporary.unlink()
        zarr.open_group(temporary, mode="w", zarr_format=3, attributes={MEMBERS: named})


def free_bytes(path: Path) -> int:
    """Free space on the disk where ``path`` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


class Prepared:
    """Reads a prepared store; arrays are opened lazily, nothing is loaded.

    Raises:
        UserError: there is no store (or, from the methods, no such image) at ``path``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "zarr.json").is_file():
            raise UserError(f"{path}: there is no prepared store here; run the prepare stage")

    @cached_property
    def members(self) -> dict[str, Prepared]:
        """The stores that a joined store stands for, by the names of the datasets; else none."""
        return {name: Prepared(path) for name, path in stores_of(self.path).items()}

    def ids(self) -> list[str]:
        """Sorted ids of the images in the store."""
        names = list(image_names(self.path, "zarr.json"))
        names += [member_id(m, name) for m, store in self.members.items() for name in store.ids()]
        return sorted(names)

    def image(self, image: str) -> zarr.Array[Any]:
        """The normalised image, float32 [C, (Z,) Y, X]."""
        array = self._array(image, "image")
        if array is None:
            raise UserError(f"{self.path / image}: has no image array; run the prepare stage")
        return array

    def classes(self, image: str) -> zarr.Array[Any] | None:
        """Class indices uint8 [(Z,) Y, X], 255 = ignore; None without a label."""
        return self._array(image, "classes")

    def instances(self, image: str) -> zarr.Array[Any] | None:
        """Instance ids uint32 [(Z,) Y, X], 0 = background; None unless the task has them."""
        return self._array(image, "instances")

    def attrs(self, image: str) -> dict[str, Any]:
        """key, axes, pixel_size_um, statistics, channels, group, display."""
        store, name = self._place(image)
        found = store._stored(name).attributes()
        if store is not self and found.get("group"):
            # Groups of two datasets may have the same name.
            found["group"] = member_id(image.partition(OF_MEMBER)[0], str(found["group"]))
        return found

    def sparse(self, image: str) -> bool:
        """Whether its pixels without a label are unknown, so that some objects have no label."""
        return "unlabelled" in self.attrs(image)

    def _place(self, image: str) -> tuple[Prepared, str]:
        """The store that holds an image, and its id there."""
        member, _, rest = image.partition(OF_MEMBER)
        store, name = (self.members[member], rest) if member in self.members else (self, image)
        if name.startswith(".") or not store._stored(name).has("zarr.json"):
            raise UserError(
                f"{store.path}: has no image {name!r} among its {len(store.ids())}; run the "
                "prepare stage"
            )
        return store, name

    def _array(self, image: str, name: str) -> zarr.Array[Any] | None:
        store, at = self._place(image)
        stored = store._stored(at)
        return stored.array(name) if stored.has(f"{name}/zarr.json") else None

    def _stored(self, name: str) -> StoredImage:
        """An image of this very store."""
        done = self.path.with_suffix(".json")
        return StoredImage(
            self.path / name,
            f"remove {{path}} and {done} and run again to prepare this image again",
        )


class OwnGrid(Prepared):
    """The same store with every image on its own pixel grid, that of the labels and the results,
    even if the images were resampled for a model."""

    def image(self, image: str) -> zarr.Array[Any]:
        """The normalised image, float32 [C, (Z,) Y, X], in the user's own pixels."""
        own = self._array(image, OWN)
        return super().image(image) if own is None else own
