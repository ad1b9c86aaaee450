"""Reads ``segmentation.zarr`` of a model, or of another tool's masks: Zarr v3 (OME-Zarr 0.5) and v2
(0.4)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import zarr

from unet.errors import UserError
from unet.files import check_complete, read_json
from unet.io.zipped_images import StoredImage, image_names


class Segmentation:
    """The segmented images of one fold, read lazily at full resolution.

    Raises:
        UserError: there is no store at ``path``.
    """

    def __init__(self, path: Path) -> None:
        if not _is_group(path):
            raise UserError(f"{path}: segmentation is missing; run the stitch stage")
        self.path = path

    def ids(self) -> list[str]:
        """Ids of the images, sorted.

        Raises:
            UserError: images of a finished segmentation are missing.
        """
        # A leading dot marks an image that is being written; the list of images has no level 0.
        found = sorted(image_names(self.path, "0", "labels/classes"))
        check_complete(self.path, found, "stitch the images again")
        return found

    def attrs(self, image: str) -> dict[str, Any]:
        """``head`` (names of the probability channels), ``part`` ("test" or "val"), ``axes``
        ("CYX" or "CZYX") and ``pixel_size_um`` (per spatial axis, or None)."""
        found = self._image(image).attributes()["unet"]
        if not isinstance(found, dict):
            raise ValueError(f"image {image}: its 'unet' attributes are not a mapping")
        return dict(found)

    def probabilities(self, image: str) -> zarr.Array[Any]:
        """float16 or float32 [C, (Z,) Y, X], C as in ``attrs(image)["head"]``."""
        return self._array(image, "0")

    def has_probabilities(self, image: str) -> bool:
        """Whether the image has probabilities; the masks of other tools have labels only."""
        return self._image(image).has("0")

    def classes(self, image: str) -> zarr.Array[Any]:
        """uint8 [(Z,) Y, X], class index; for task instances 0 = background, 1 = foreground."""
        return self._array(image, "labels/classes/0")

    def instances(self, image: str) -> zarr.Array[Any] | None:
        """uint32 [(Z,) Y, X], object ids, 0 = background; None for task semantic."""
        if not self._image(image).has("labels/instances"):
            return None
        return self._array(image, "labels/instances/0")

    def levels(self, image: str, name: str = "") -> list[zarr.Array[Any]]:
        """All levels of a pyramid, the finest first: of the probabilities [C, (Z,) Y, X], or of
        ``labels/classes`` or ``labels/instances`` [(Z,) Y, X]."""
        folders = self._image(image).folders(name)
        numbers = sorted(int(each) for each in folders if each.isdecimal())
        return [self._array(image, f"{name}/{number}".lstrip("/")) for number in numbers]

    def seam_score(self, image: str) -> float | None:
        """The seam score (`unet.prediction.stitch.seams`); None for an image of one tile."""
        seam = self._entries.get(image, {}).get("seam")
        return None if seam is None else float(seam["score"])

    @cached_property
    def _entries(self) -> dict[str, Any]:
        """The entry of each image in the stage's sentinel; empty if there is no sentinel."""
        done = self.path.with_suffix(".json")
        found: dict[str, Any] = read_json(done)["images"] if done.is_file() else {}
        return found

    def _image(self, image: str) -> StoredImage:
        done = self.path.with_suffix(".json")
        return StoredImage(
            self.path / image, f"remove {done} and run again to stitch the images again"
        )

    def _array(self, image: str, name: str) -> zarr.Array[Any]:
        return self._image(image).array(name)


def _is_group(path: Path) -> bool:
    return (path / "zarr.json").is_file() or (path / ".zgroup").is_file()
