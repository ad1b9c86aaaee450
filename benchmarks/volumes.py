"""Cuts a labelled volume into blocks, so that one volume can train, validate and test.

    python benchmarks/volumes.py DATA/plant_ovule_nuclei_3d BLOCKS --size 0.284 0.127 0.127

Reads the single TIFF files in DATA/.../images and labels, and writes blocks to BLOCKS/images and
BLOCKS/labels as OME-TIFF: four blocks with the full Z, or those of --grid. Ids are kept: an object
that is cut has the same id in each block. With a fold per block (config/examples/volumes.yaml),
each block is tested with a network that was not trained on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Array = NDArray[Any]


def blocks(shape: Sequence[int], grid: Sequence[int]) -> list[tuple[slice, ...]]:
    """Regions [Z, Y, X] that cover a volume once, ``grid`` of them along each axis."""
    edges = [np.linspace(0, n, k + 1).round().astype(int) for n, k in zip(shape, grid, strict=True)]
    return list(product(*([slice(int(a), int(b)) for a, b in pairwise(e)] for e in edges)))


def the_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.tif"))
    if len(found) != 1:
        raise SystemExit(f"{folder}: {len(found)} TIFF files; one is wanted")
    return found[0]


def write(path: Path, pixels: Array, size: Sequence[float] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, step in zip("ZYX", size or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, pixels, ome=True, compression="zlib", metadata=metadata)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("source", type=Path, help="folder with images/ and labels/")
    p.add_argument("target", type=Path, help="folder that the blocks are written to")
    p.add_argument("--grid", type=int, nargs=3, default=(1, 2, 2), help="blocks along Z Y X")
    p.add_argument("--size", type=float, nargs=3, help="micrometres per voxel: Z Y X")
    args = p.parse_args(argv)
    image, label = (tifffile.imread(the_file(args.source / part)) for part in ("images", "labels"))
    if image.ndim != 3 or image.shape != label.shape:
        raise SystemExit(
            f"{args.source}: image {image.shape}, label {label.shape}; wanted: [Z, Y, X]"
        )
    regions = blocks(image.shape, args.grid)
    if len(regions) < 3:
        raise SystemExit(f"--grid: {len(regions)} blocks; at least 3 are needed")
    for region in regions:
        corner = "-".join(f"{axis}{s.start:04d}" for axis, s in zip("zyx", region, strict=True))
        name = f"block-{corner}.ome.tif"
        write(args.target / "images" / name, image[region], args.size)
        write(args.target / "labels" / name, label[region], args.size)
        size = " x ".join(map(str, image[region].shape))
        print(f"{name}: {size}, {len(np.unique(label[region])) - 1} objects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
