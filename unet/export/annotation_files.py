"""Files of a crop that a person annotates: the image, the labels to start from, and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.export import tiff_writer
from unet.export.geojson import geojson_writer
from unet.export.outlines import corners, polygons
from unet.export.rois import roi_writer
from unet.files import replacing
from unet.io.raw import RGB_NAMES

# One class, one colour, as in the outlines of the stitch stage.
_COLOUR = (0xE6, 0x9F, 0x00)


def write_pixels(
    path: Path,
    pixels: NDArray[Any],
    channels: Sequence[str],
    pixel_size_um: Sequence[float] | None,
) -> None:
    """Writes an image as OME-TIFF with the values and the type that it has.

    Args:
        pixels: [C, (Z,) Y, X].
        channels: names, "" for unnamed ones; red, green, blue of 8 or 16 bits are stored as RGB.
        pixel_size_um: micrometres along (Z,) Y, X; None = unknown.
    """
    import tifffile

    about: dict[str, Any] = {}
    if pixel_size_um is not None:
        for axis, size in zip("XYZ", reversed(pixel_size_um), strict=False):
            about |= {f"PhysicalSize{axis}": float(size), f"PhysicalSize{axis}Unit": "µm"}
    depth = "Z" if pixels.ndim == 4 else ""
    rgb = tuple(channels) == RGB_NAMES and pixels.dtype in (np.uint8, np.uint16)
    if rgb:
        data, axes = np.moveaxis(pixels, 0, -1), f"{depth}YXS"
    elif len(pixels) == 1:
        data, axes = pixels[0], f"{depth}YX"
    else:
        data, axes = pixels, f"C{depth}YX"
        if any(channels):
            about["Channel"] = {"Name": list(channels)}
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(data),
            ome=True,
            photometric="rgb" if rgb else "minisblack",
            compression="zlib",
            metadata={"axes": axes, **about},
        )


def write_labels(
    path: Path, labels: NDArray[Any], pixel_size_um: Sequence[float] | None, *, ids: bool
) -> None:
    """Writes labels as TIFF of the smallest type that fits them.

    Args:
        labels: integers [(Z,) Y, X].
        pixel_size_um: micrometres along the same axes; None = unknown.
        ids: whether they are ids of objects, which get at least 16 bits: people add more.
    """
    low, top = int(min(0, labels.min())), int(labels.max())
    dtype = tiff_writer.smallest_dtype(low, max(top, 2**16 - 1) if ids else top)
    tiff_writer.write_mask(path, labels.__getitem__, labels.shape, dtype, pixel_size_um, top=top)


def write_crop_outlines(
    geojson: Path, rois: Path, name: str, labels: NDArray[Any], kind: str
) -> None:
    """Writes the outlines of the objects in pixels of the crop: as GeoJSON and as ImageJ ROIs.

    Args:
        name: of the crop.
        labels: ids [Y, X]; an object that the crop cuts ends at its border.
        kind: name of the objects' class.
    """
    height, width = labels.shape
    every = (slice(0, height + 1), slice(0, width + 1))
    sizes = dict(zip(*(v.tolist() for v in np.unique(labels, return_counts=True)), strict=True))
    with ExitStack() as stack:
        features = stack.enter_context(geojson_writer(geojson, name))
        archive = stack.enter_context(roi_writer(rois))
        for label, found in polygons(corners(labels.__getitem__, labels.shape, every)):
            features.add(label, found, kind, _COLOUR, {"area_px": float(sizes[label])})
            archive.add(label, found)
