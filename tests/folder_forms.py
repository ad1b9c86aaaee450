"""Folders of images and labels in the usual forms, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

Array = npt.NDArray[Any]


def scene(seed: int = 0, side: int = 48, cells: int = 6) -> tuple[Array, Array]:
    """A noisy image of bright squares, and the squares numbered from 1; uint16 [Y, X]."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint16)
    places = rng.permutation((side // 12) ** 2)[: cells + seed % 3]
    for number, place in enumerate(places, start=1):
        y, x = (12 * int(n) + 2 for n in divmod(int(place), side // 12))
        labels[y : y + 7, x : x + 7] = number
    image = 500 + 3000.0 * (labels > 0) + rng.normal(0, 100, labels.shape)
    return image.astype(np.uint16), labels


def write(path: Path, array: Array, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)


def two_folders(
    root: Path,
    images: str = "images",
    labels: str = "labels",
    number: int = 6,
    change: Callable[[Array], Array] = lambda label: label,
) -> Path:
    """Images and labels in two folders; ``change`` turns numbers into other values."""
    for i in range(number):
        image, label = scene(i)
        write(root / images / f"a{i}.tif", image)
        write(root / labels / f"a{i}.tif", change(label))
    return root


def one_folder(root: Path, ending: str = "_masks") -> Path:
    for i in range(6):
        image, label = scene(i)
        write(root / f"a{i}.tif", image)
        write(root / f"a{i}{ending}.tif", label)
    return root


def by_words(root: Path) -> Path:
    for i in range(6):
        image, label = scene(i)
        write(root / f"img_{i:02}.tif", image)
        write(root / f"mask_{i:02}.tif", label)
    return root


def nnunet(root: Path) -> Path:
    for i in range(6):
        image, label = scene(i)
        write(root / "imagesTr" / f"c{i}_0000.tif", image)
        write(root / "labelsTr" / f"c{i}.tif", label)
    return root


def ctc(root: Path) -> Path:
    for sequence in ("01", "02", "03"):
        for i in range(3):
            image, label = scene(i + 10 * int(sequence))
            write(root / sequence / f"t{i:03}.tif", image)
            write(root / f"{sequence}_GT" / "SEG" / f"man_seg{i:03}.tif", label)
    return root


def dsb2018(root: Path) -> Path:
    for i in range(6):
        image, label = scene(i)
        write(root / f"id{i}" / "images" / f"id{i}.tif", image)
        for number in range(1, int(label.max()) + 1):
            mask = np.where(label == number, 255, 0).astype(np.uint8)
            write(root / f"id{i}" / "masks" / f"m{number}.tif", mask)
    return root


def sheet(root: Path) -> Path:
    lines = ["image,label,part"]
    for i in range(6):
        image, label = scene(i)
        write(root / "x" / f"a{i}.tif", image)
        write(root / "y" / f"b{i}.tif", label)
        lines.append(f"x/a{i}.tif,y/b{i}.tif,{'test' if i > 4 else 'val' if i > 3 else 'train'}")
    (root / "sheet.csv").write_text("\n".join(lines) + "\n")
    return root


def stacks(root: Path, pages: int = 6) -> Path:
    """One file of pages without declared axes, and its labels: other numbers on each page."""
    scenes = [scene(i) for i in range(pages)]
    write(root / "train-volume.tif", np.stack([image for image, _ in scenes]), metadata=None)
    write(root / "train-labels.tif", np.stack([label for _, label in scenes]), metadata=None)
    return root


def volumes(root: Path, number: int = 4, declared: bool = True) -> Path:
    """Volumes [Z, Y, X] in which objects go through several sections."""
    for i in range(number):
        image, label = scene(i)
        options: dict[str, Any] = {"metadata": {"axes": "ZYX"} if declared else None}
        write(root / "images" / f"v{i}.tif", np.stack([image + z for z in range(12)]), **options)
        write(root / "labels" / f"v{i}.tif", np.stack([label] * 12), **options)
    return root


def zarrs(root: Path) -> Path:
    """OME-Zarr images with labels inside."""
    for i in range(6):
        image, label = scene(i)
        group = zarr.open_group(str(root / f"a{i}.zarr"), mode="w", zarr_format=2)
        _put(group, image)
        _put(group.require_group("labels").require_group("cells"), label)
    return root


def _put(group: zarr.Group, array: Array) -> None:
    stored = group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=(32, 32))
    stored[:] = array
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


FORMS: dict[str, Callable[[Path], Path]] = {
    "two folders": two_folders,
    "one folder": one_folder,
    "words": by_words,
    "nnunet": nnunet,
    "ctc": ctc,
    "dsb2018": dsb2018,
    "sheet": sheet,
    "stack": stacks,
    "volumes": volumes,
    "zarr": zarrs,
}
