"""Results as layers for napari: image, truth, and the probabilities and labels of each model.

napari itself is not imported: a layer is a tuple (data, options, type), as napari's plugins return
it. Data are dask arrays, so napari reads only what it shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError, did_you_mean
from unet.io.raw import lazily

log = logging.getLogger("unet")

# Data, options, type ("image" or "labels").
LayerData = tuple[Any, dict[str, Any], str]

# From this size on an image is shown at coarser levels too, until it is this small.
_LARGE = 2048
# Side of the window in the middle of an image that decides its contrast.
_SAMPLE = 512
_COLOURS = ("gray", "magenta", "cyan", "yellow", "green", "bop orange")
_STORE = "segmentation.zarr"


@dataclass(frozen=True)
class Prediction:
    """A store of segmentations to show, and the name of its layers."""

    name: str
    store: Path


@dataclass(frozen=True)
class Result:
    """What a path given by a user stands for.

    Attributes:
        predictions: in the order of their layers.
        prepared: the prepared store with the images (and the truth), if it is there.
        originals: id -> (file, page) of the images, for a folder of ``unet predict``.
    """

    path: Path
    predictions: tuple[Prediction, ...]
    prepared: Path | None
    originals: Mapping[str, tuple[Path, int | None]]

    @property
    def images(self) -> list[str]:
        """Sorted ids of all images that any of the stores has."""
        from unet.prediction.stitch.segmentation import Segmentation

        return sorted({i for one in self.predictions for i in Segmentation(one.store).ids()})


def find_result(path: Path, originals: Path | None = None) -> Result:
    """What to show for a path.

    Args:
        path: a segmentation.zarr, or the folder of a fold, a model, a dataset, or of
            ``unet predict``.
        originals: folder of the images that ``unet predict`` was applied to.

    Raises:
        UserError: there are no segmentations.
    """
    path = path.absolute()
    if path.name == _STORE:
        return replace(find_result(path.parent, originals), path=path)
    patterns = (_STORE, f"fold-*/{_STORE}", f"*/fold-*/{_STORE}")
    stores = next((found for p in patterns if (found := sorted(path.glob(p)))), [])
    if not stores:
        raise UserError(
            f"{path}: no {_STORE} here; give the folder of a fold, a model or a dataset in the "
            "results, or that of unet predict"
        )
    names = _names([store.parent for store in stores], path)
    predictions = tuple(map(Prediction, names, stores))
    folder = stores[0].parent
    if (folder / "manifest.csv").is_file():
        kept = folder / "work" / "prepared.zarr"
        files = {} if originals is None else _originals(folder / "manifest.csv", originals)
        return Result(path, predictions, kept if kept.is_dir() else None, files)
    model = folder.parent
    own = (model / "prepared.zarr", model.parent / "prepared.zarr")
    prepared = next((store for store in own if store.is_dir()), None)
    return Result(path, predictions, prepared, {})


def _names(folders: Sequence[Path], given: Path) -> list[str]:
    """Names of the layers: what tells the stores apart, or "" for a single one."""
    if len(folders) == 1:
        return [""]
    return [folder.relative_to(given).as_posix() for folder in folders]


def _originals(manifest: Path, folder: Path) -> dict[str, tuple[Path, int | None]]:
    from unet.data.records import read_manifest

    found = {r.id: (folder / r.image, r.page) for r in read_manifest(manifest) if r.status == "ok"}
    missing = next((path for path, _ in found.values() if not path.exists()), None)
    if missing is not None:
        raise UserError(
            f"--images: {missing} is missing; give the folder that the images in {manifest} are in"
        )
    return found


def layers_of(result: Result, image: str | None = None) -> list[LayerData]:
    """The layers of one image: the image, its probabilities, labels and truth.

    Args:
        image: its id; None = the first one.

    Raises:
        UserError: no store has this image, or a file is missing.
    """
    from unet.prediction.stitch.segmentation import Segmentation

    known = result.images
    if not known:
        raise UserError(f"{result.path}: has no images; run the stitch stage")
    image = known[0] if image is None else image
    if image not in known:
        listed = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        raise UserError(f"--image: no {image!r}; there are: {listed}{did_you_mean(image, known)}")
    stores = [(one, Segmentation(one.store)) for one in result.predictions]
    stores = [(one, store) for one, store in stores if image in store.ids()]
    space = _space(stores[0][1].attrs(image))
    layers = list(_image_layers(result, image, space))
    for number, (one, store) in enumerate(stores):
        layers += _predicted(one, store, image, space, visible=number == 0)
    return [*layers, *_truth(result, image, space)]


def _space(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The scale of all layers, in micrometres if the pixel size is known."""
    sizes, spatial = attrs.get("pixel_size_um"), len(attrs["axes"]) - 1
    if not sizes:
        return {"scale": (1.0,) * spatial}
    return {"scale": tuple(map(float, sizes)), "units": ("um",) * spatial}


def _image_layers(result: Result, image: str, space: Mapping[str, Any]) -> Iterator[LayerData]:
    """One layer per channel [(Z,) Y, X]."""
    from unet.data.store import OwnGrid
    from unet.io.images import open_image

    if result.prepared is not None and image in OwnGrid(result.prepared).ids():
        store = OwnGrid(result.prepared)
        stored, names = store.image(image), store.attrs(image).get("channels", ())
        array = lazily(stored, stored.chunks)
    elif image in result.originals:
        file, page = result.originals[image]
        opened = open_image(file, page=page)
        array, names = opened.array, opened.channel_names
    else:
        log.warning(
            "%s: the image is not in these results; give its folder with --images", image
        )  # the segmentation is shown without it
        return
    several = len(array) > 1
    for number, channel in enumerate(array):
        name = (names[number] if number < len(names) else "") or f"channel {number}"
        options = {
            "name": f"image: {name}" if several else "image",
            "colormap": _COLOURS[number % len(_COLOURS)],
            "contrast_limits": _limits(channel),
            "blending": "additive" if several and number else "translucent",
        }
        yield _layer(_pyramid(channel), {**options, **space}, "image")


def _limits(channel: Any) -> tuple[float, float]:
    """Contrast from the middle of an image [(Z,) Y, X]: reading a large one would take long."""
    middle = tuple(
        slice(max(0, n // 2 - side // 2), n // 2 + max(1, side // 2))
        for n, side in zip(channel.shape, (1, _SAMPLE, _SAMPLE)[-channel.ndim :], strict=True)
    )
    values = np.asarray(channel[middle])
    low, high = (float(v) for v in np.nanpercentile(values, (0.5, 99.8)))
    return (low, high) if high > low else (low, low + 1)


def _pyramid(array: Any) -> list[Any]:
    """The array and coarser versions of it, each with every second row and column."""
    levels = [array]
    while max(levels[-1].shape[-2:]) > _LARGE:
        levels.append(levels[-1][..., ::2, ::2])
    return levels


def _predicted(
    one: Prediction, store: Any, image: str, space: Mapping[str, Any], *, visible: bool
) -> Iterator[LayerData]:
    """The probabilities of each class, and the labels, from the store's own pyramids.

    Args:
        visible: whether the labels are shown at the start.
    """
    prefix = f"{one.name}: " if one.name else ""
    levels = [lazily(array, array.chunks) for array in store.levels(image)]
    for number, head in enumerate(store.attrs(image)["head"]):
        options = {
            "name": f"{prefix}probability of {head}",
            "colormap": _COLOURS[(number + 1) % len(_COLOURS)],
            "contrast_limits": (0.0, 1.0),
            "blending": "additive",
            "visible": False,
        }
        yield _layer([level[number] for level in levels], {**options, **space}, "image")
    name = "classes" if store.instances(image) is None else "instances"
    labels = [lazily(array, array.chunks) for array in store.levels(image, f"labels/{name}")]
    options = {"name": f"{prefix}{name}", "opacity": 0.5, "visible": visible, **space}
    yield _layer(labels, options, "labels")


def _truth(result: Result, image: str, space: Mapping[str, Any]) -> Iterator[LayerData]:
    from unet.data.store import OwnGrid

    if result.prepared is None:
        return
    store = OwnGrid(result.prepared)
    if image not in store.ids():
        return
    array = store.instances(image)
    array = store.classes(image) if array is None else array
    if array is not None:
        options = {"name": "truth", "opacity": 0.5, "visible": False, **space}
        yield _layer(_pyramid(lazily(array, array.chunks)), options, "labels")


def _layer(levels: list[Any], options: dict[str, Any], kind: str) -> LayerData:
    """A layer of one level or of several."""
    if len(levels) == 1:
        return levels[0], {**options, "multiscale": False}, kind
    return levels, {**options, "multiscale": True}, kind
