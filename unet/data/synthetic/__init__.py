"""Small generated datasets for the demo and the tests: plausible, exactly labelled.

In: a kind, a seed, a count and a size in pixels.
Out: pairs of image and label [(Z,) Y, X], also as OME-TIFF files.

Labels come from the geometry, and images from the labels through a model of optics and camera, so
no label depends on noise. Start with `nuclei.py`. To add a kind, write a function and add one line
in `KINDS` and one in `unet.config.choices.SYNTHETIC_TABLE`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from unet.data.synthetic.membranes import membranes
from unet.data.synthetic.nuclei import nuclei
from unet.data.synthetic.nuclei3d import Z_STEP, nuclei3d
from unet.data.synthetic.phase import phase
from unet.errors import UserError

Array = NDArray[Any]

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], tuple[Array, Array]]] = {
    "membranes": membranes,  # uint8 image; uint8 class map, 255 = inside a cell, 0 = membrane
    "nuclei": nuclei,  # uint16 image; uint16 instance ids, 0 = background
    "nuclei3d": nuclei3d,  # volumes: uint16 image; uint16 instance ids, 0 = background
    "phase": phase,  # uint16 image; uint16 instance ids, 0 = background
}
MIN_SIDE = 32  # pixels: below this hardly one cell fits


def generate(kind: str, seed: int, index: int, size: tuple[int, int]) -> tuple[Array, Array]:
    """Image and label [(Z,) Y, X] number `index` of a dataset; `size` is (Y, X) in pixels.

    Each image has its own random stream, seeded by (seed, index), so it does not depend on the
    number or order of the generated images. Raises UserError for an unknown kind or a side below 32
    pixels.
    """
    if kind not in KINDS:
        raise UserError(
            f"kind: '{kind}' is not a generated dataset; write one of {', '.join(KINDS)}"
        )
    if min(size) < MIN_SIDE:
        raise UserError(
            f"size: {size[0]} x {size[1]} pixels is too small; write at least {MIN_SIDE} each"
        )
    return KINDS[kind](np.random.default_rng([seed, index]), size)


def write_dataset(
    folder: Path, kind: str, seed: int, count: int, size: tuple[int, int], pixel_size_um: float
) -> list[str]:
    """Writes `count` pairs as OME-TIFF and returns their stems (`<kind>_000`, ...).

    Files: `<folder>/images/<stem>.tif` and `<folder>/labels/<stem>.tif`, axes (Z)YX, zlib, pixel
    size in micrometres (in volumes, sections are `Z_STEP` times as far apart). Each file appears
    whole, by renaming; two runs write the same bytes. Raises UserError like `generate`, and for a
    pixel size or count that is not positive.
    """
    if count < 1:
        raise UserError(f"count: {count} images requested; write 1 or more")
    if not pixel_size_um > 0:
        raise UserError(
            f"pixel_size_um: {pixel_size_um} found; write a size in micrometres above 0"
        )
    stems = [f"{kind}_{index:03d}" for index in range(count)]
    for index, stem in enumerate(stems):
        pair = generate(kind, seed, index, size)
        for part, pixels in zip(("images", "labels"), pair, strict=True):
            path = folder / part / f"{stem}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_tiff(
                path, pixels, pixel_size_um, f"{kind}/{seed}/{index}/{size[0]}x{size[1]}/{part}"
            )
    return stems


def _write_tiff(path: Path, pixels: Array, pixel_size_um: float, identity: str) -> None:
    """One OME-TIFF [(Z,) Y, X], atomically; its UUID is derived from `identity`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    metadata = {
        "axes": "ZYX"[-pixels.ndim :],
        "PhysicalSizeX": pixel_size_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_size_um,
        "PhysicalSizeYUnit": "µm",
        # A random UUID would make every run's bytes differ.
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"synthetic/{identity}")),
    }
    if pixels.ndim == 3:
        metadata |= {"PhysicalSizeZ": Z_STEP * pixel_size_um, "PhysicalSizeZUnit": "µm"}
    per_centimetre = 1e4 / pixel_size_um
    try:
        tifffile.imwrite(
            partial,
            pixels,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            resolution=(per_centimetre, per_centimetre),
            resolutionunit="CENTIMETER",
            metadata=metadata,
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
