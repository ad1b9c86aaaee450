"""The read side of ``segmentation.zarr``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from unet.errors import UserError


class Segmentation:
    """The segmented images of one fold, read lazily at full resolution.

    Raises:
        UserError: there is no store at ``path``.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "zarr.json").is_file():
            raise UserError(f"{path}: no segmentation there; run the stitch stage")
        self._path = path

    def ids(self) -> list[str]:
        """Ids of the images, sorted."""
        # Names with a dot in front are images being written.
        return sorted(
            child.name
            for child in self._path.iterdir()
            if not child.name.startswith(".") and (child / "zarr.json").is_file()
        )

    def attrs(self, image: str) -> dict[str, Any]:
        """``head`` (names of the probability channels), ``part`` ("test" or "val"), ``axes``
        ("CYX" or "CZYX"), ``pixel_size_um`` (per spatial axis, or None)."""
        found = self._group(image).attrs["unet"]
        if not isinstance(found, dict):
            raise ValueError(f"image {image}: its 'unet' attributes are no mapping")
        return dict(found)

    def probabilities(self, image: str) -> zarr.Array[Any]:
        """float16 or float32 [C, (Z,) Y, X], C as in ``attrs(image)["head"]``."""
        return self._array(image, "0")

    def classes(self, image: str) -> zarr.Array[Any]:
        """uint8 [(Z,) Y, X], class index; of instances: 0 background, 1 foreground."""
        return self._array(image, "labels/classes/0")

    def instances(self, image: str) -> zarr.Array[Any] | None:
        """uint32 [(Z,) Y, X], object ids, 0 = background; None for task semantic."""
        if not (self._path / image / "labels" / "instances").is_dir():
            return None
        return self._array(image, "labels/instances/0")

    def _group(self, image: str) -> zarr.Group:
        return zarr.open_group(str(self._path / image), mode="r")

    def _array(self, image: str, name: str) -> zarr.Array[Any]:
        return zarr.open_array(str(self._path / image / name), mode="r")
