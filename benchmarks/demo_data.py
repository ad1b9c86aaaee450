"""Writes the images, labels and other tools' masks of `make demo-full` (config/demo-full.yaml)."""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# So that `python benchmarks/demo_data.py` finds the packages, which need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.planted import Planted, plant
from unet.cli.arguments import Parser, positive
from unet.cli.stage import run
from unet.files import replacing
from unet.paths import Paths

log = logging.getLogger("unet")

Array = NDArray[Any]
Images = dict[str, Array]

SIZE, PIXEL_SIZE_UM = 256, 0.5
# Nuclei: slides with so many images each. Those of the last one are out of focus.
SLIDES, PER_SLIDE, BLUR = 8, 3, 2.5
# Images whose labels get mistakes: one of each of the first slides. Of two of them the labels are
# exchanged; in the others some objects are dropped, added, merged and shifted.
MISTAKEN = 5
# Images of the other datasets. Of the new nuclei the last ones are out of focus.
MEMBRANES, NEW, NEW_BLURRED, PHASE = 12, 8, 2, 6
# Seeds of the generated images; equal ones would give equal nuclei.
SEED, NEW_SEED = 0, 1


def otsu_watershed(image: Array) -> Array:
    """Objects by the classical method: Otsu's threshold on a smoothed image, and a watershed from
    the middles of the pieces (the peaks of the distance to the background). Ids int32 [Y, X]."""
    from scipy import ndimage
    from skimage import feature, segmentation

    mask = _foreground(image)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    pieces, _ = ndimage.label(mask)
    peaks_of: Callable[..., Array] = feature.peak_local_max
    peaks = peaks_of(distance, min_distance=4, labels=pieces, exclude_border=False)
    markers = np.zeros(image.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    watershed: Callable[..., Array] = segmentation.watershed
    return watershed(-distance, markers, mask=mask)


def otsu_pieces(image: Array) -> Array:
    """The connected pieces above Otsu's threshold, so touching objects are one. Ids int32."""
    from scipy import ndimage

    found: Array = ndimage.label(_foreground(image))[0]
    return found


def _foreground(image: Array) -> Array:
    from scipy import ndimage
    from skimage import filters

    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1)
    threshold: Callable[[Array], float] = filters.threshold_otsu
    found: Array = smooth > threshold(smooth)
    return found


def blurred(image: Array, sigma: float) -> Array:
    """An image out of focus: smoothed by a Gaussian, in the type that it had."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image.astype(np.float64), sigma)
    found: Array = np.rint(smooth).astype(image.dtype)
    return found


def write_demo_data(folder: Path, size: int = SIZE, per_slide: int = PER_SLIDE) -> None:
    """Writes everything below ``folder``; the same arguments give the same pixels.

    - ``nuclei/images``, ``nuclei/labels``: slides of nuclei. Some labels have mistakes on purpose,
      which ``nuclei/mistakes.csv`` lists.
    - ``nuclei/otsu-watershed/*_cp_masks.tif``, ``nuclei/otsu-pieces/*.geojson``: what classical
      methods make of the images, in the files of two other tools. The last one of the GeoJSON
      files is left out.
    - ``membranes``, ``new-nuclei``, ``phase``: images and labels.

    Args:
        size: side of the images, in pixels.
        per_slide: number of images of a slide.
    """
    images, labels = _nuclei(size, per_slide)
    mistakes = _with_mistakes(labels, per_slide)
    _write_pairs(folder / "nuclei", images, labels)
    _write_mistakes(folder / "nuclei" / "mistakes.csv", mistakes)
    _write_masks(folder / "nuclei", images)
    for name, kind, count, seed in (
        ("membranes", "membranes", MEMBRANES, SEED),
        ("new-nuclei", "nuclei", NEW, NEW_SEED),
        ("phase", "phase", PHASE, SEED),
    ):
        more, true = _generated(kind, count, seed, size)
        for image in list(more)[-NEW_BLURRED:] if name == "new-nuclei" else ():
            more[image] = blurred(more[image], BLUR)
        _write_pairs(folder / name, more, true)


def _generated(kind: str, count: int, seed: int, size: int) -> tuple[Images, Images]:
    """Images and labels by name."""
    from unet.data.synthetic import generate

    pairs = {f"{kind}_{k:02d}": generate(kind, seed, k, (size, size)) for k in range(count)}
    return {n: image for n, (image, _) in pairs.items()}, {
        n: true for n, (_, true) in pairs.items()
    }


def _nuclei(size: int, per_slide: int) -> tuple[Images, Images]:
    found, true = _generated("nuclei", SLIDES * per_slide, SEED, size)
    names = {
        old: f"slide{k // per_slide + 1}_{k % per_slide + 1}" for k, old in enumerate(sorted(found))
    }
    images = {names[old]: image for old, image in found.items()}
    for name, image in images.items():
        if name.startswith(f"slide{SLIDES}_"):
            images[name] = blurred(image, BLUR)
    return images, {names[old]: label for old, label in true.items()}


def _with_mistakes(labels: Images, per_slide: int) -> list[Planted]:
    """Changes some of the labels in place."""
    chosen = {name: labels[name] for name in sorted(labels)[: MISTAKEN * per_slide : per_slide]}
    found = plant(chosen, "instances", SEED)
    labels.update(chosen)
    return found


def _write_pairs(folder: Path, images: Images, labels: Images) -> None:
    from unet.export.annotation_files import write_labels, write_pixels

    sizes = (PIXEL_SIZE_UM, PIXEL_SIZE_UM)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for name, image in images.items():
        write_pixels(folder / "images" / f"{name}.tif", image[None], ("",), sizes)
        write_labels(folder / "labels" / f"{name}.tif", labels[name], sizes, ids=True)


def _write_masks(folder: Path, images: Images) -> None:
    from unet.export.annotation_files import write_labels
    from unet.export.geojson import geojson_writer
    from unet.export.outlines import corners, polygons

    watershed, pieces = folder / "otsu-watershed", folder / "otsu-pieces"
    for made in (watershed, pieces):
        made.mkdir()
    for name, image in images.items():
        write_labels(watershed / f"{name}_cp_masks.tif", otsu_watershed(image), None, ids=True)
    for name in sorted(images)[:-1]:
        found = otsu_pieces(images[name])
        vertices = tuple(slice(0, side + 1) for side in found.shape)
        with geojson_writer(pieces / f"{name}.geojson", name) as features:
            for label, outlines in polygons(corners(found.__getitem__, found.shape, vertices)):
                features.add(label, outlines, "nucleus", (0xE6, 0x9F, 0x00), {})


def _write_mistakes(path: Path, mistakes: Sequence[Planted]) -> None:
    """A row per mistake: image, kind, and the box of the pixels that changed (end excluded)."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["image", "kind", "y_from", "x_from", "y_to", "x_to"])
        table.writerows([each.image, each.kind, *each.low, *each.high] for each in mistakes)


def run_stage(args: argparse.Namespace, _: Paths) -> None:
    if args.folder.exists():
        log.info("%s: there already; remove it to write it again", args.folder)
        return
    args.folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.folder) as temporary:
        temporary.unlink()  # it is an empty file
        write_demo_data(temporary, args.size, args.per_slide)
    log.info("%s: images, labels and masks written", args.folder)


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(prog="python benchmarks/demo_data.py", description=__doc__)
    p.add_argument("folder", type=Path, help="folder to write; one that is there stays as it is")
    p.add_argument(
        "--size", type=positive, default=SIZE, help="side of an image in pixels (%(default)s)"
    )
    p.add_argument(
        "--per-slide", type=positive, default=PER_SLIDE,
        help="number of nuclei images of each slide (%(default)s)",
    )  # fmt: skip
    p.set_defaults(log=None, output=Path())
    return run(p.parse_args(argv), run_stage)


if __name__ == "__main__":
    sys.exit(main())
