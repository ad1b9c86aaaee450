"""Finished results on images without labels, written by hand: no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

from unet.data.records import ImageRecord, write_manifest
from unet.export.ome_zarr_collection import create_collection, list_images
from unet.export.ome_zarr_writer import create_image, create_labels, pyramid_of
from unet.files import write_json
from unet.paths import ENSEMBLE, Paths

MODEL = "m@old"


@dataclass(frozen=True)
class Made:
    """An image: pixels [C, (Z,) Y, X], ids of objects (or classes) [(Z,) Y, X], and how sure the
    model is of all of them."""

    pixels: NDArray[Any]
    labels: NDArray[Any]
    sure: float = 0.9
    group: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


def squares(seed: int, shape: tuple[int, ...], count: int, channels: int = 1) -> Made:
    """Noise, and some squares (cubes) of 6 pixels with ids from 7 on."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for number in range(count):
        corner = [int(rng.integers(0, n - 3)) for n in shape]
        labels[tuple(slice(c, c + 6) for c in corner)] = 7 + number
    pixels = rng.integers(0, 60, (channels, *shape)) + 500 * (labels > 0)
    return Made(pixels.astype(np.uint16), labels, float(rng.uniform(0.6, 0.95)))


def write_store(store: Path, images: Mapping[str, Made], names: tuple[str, ...], ids: bool) -> None:
    """A segmentation.zarr with these labels, and probabilities that fit them."""
    create_collection(store, "0.5")
    for image, made in images.items():
        size = made.about.get("pixel_size_um")
        shape = made.labels.shape
        pyramid = pyramid_of(shape, 1, size)
        axes = "CYX" if len(shape) == 2 else "CZYX"
        about = {"head": list(names), "part": "test", "axes": axes, "pixel_size_um": size}
        levels = create_image(store / image, pyramid, "float32", names, {"unet": about})
        classes = (made.labels > 0).astype(np.uint8) if ids else made.labels.astype(np.uint8)
        dtypes: dict[str, Any] = {"classes": "uint8"} | ({"instances": "uint32"} if ids else {})
        arrays = create_labels(store / image, pyramid, dtypes, names, len(names))
        rest = (1 - made.sure) / (len(names) - 1)
        for k in range(len(names)):
            levels[0][k] = np.where(classes == k, made.sure, rest).astype(np.float32)
        arrays["classes"][0][...] = classes
        if ids:
            arrays["instances"][0][...] = made.labels
    list_images(store, {n: (len(names), *m.labels.shape) for n, m in images.items()}, "0.5")


def write_images(folder: Path, images: Mapping[str, Made]) -> list[ImageRecord]:
    """The raw files, and their rows of the manifest."""
    records = []
    for image, made in images.items():
        channels, depth = len(made.pixels), "Z" if made.labels.ndim == 3 else ""
        axes = f"{'C' if channels > 1 else ''}{depth}YX"
        path = folder / f"{image}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = made.pixels if channels > 1 else made.pixels[0]
        photometric = "minisblack"
        tifffile.imwrite(path, data, ome=True, photometric=photometric, metadata={"axes": axes})
        about = {"axes": f"C{depth}YX", "shape": made.pixels.shape, "dtype": str(data.dtype)}
        records.append(ImageRecord(image, path.name, group=made.group, **{**about, **made.about}))
    return records


def write_results(
    folder: Path, images: Mapping[str, Made], classes: dict[str, int] | None = None
) -> Paths:
    """Results of a run whose dataset ``new`` was predicted by a model of ``old``."""
    paths = Paths(folder / "results")
    task: dict[str, Any] = {"task": "instances"} if classes is None else {"classes": classes}
    config = {
        "datasets": {
            "old": {"images": "old/i", "labels": "old/l", **task},
            "new": {"images": "new", "predict_with": ["old/m"]},
        },
        "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 1}},
    }
    records = write_images(folder / "new", images)
    write_manifest(paths.manifest("new"), records)
    write_json(paths.inputs("new"), {"root": str(folder / "new"), "files": {}})
    paths.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    names = ("background", "foreground") if classes is None else tuple(classes)
    write_store(paths.segmentation("new", MODEL, ENSEMBLE), images, names, classes is None)
    return paths
