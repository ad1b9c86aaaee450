"""Writes labels into an OME-Zarr image of the user, beside what is there: of plates, for example.

Nothing is removed. The label gets its name once it is complete; then it is added to the list of the
image's labels. A mark in it (:mod:`unet.io.own_labels`) says that it may be written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.data.blocks import ordered
from unet.data.tiling import Slices
from unet.errors import UserError
from unet.export.ome_zarr_writer import (
    Pixels,
    Pyramid,
    Version,
    ZarrArray,
    group_metadata,
    new_levels,
    write_group,
    write_regions,
)
from unet.export.pyramid import Reduction
from unet.files import replacing
from unet.io import own_labels
from unet.io.zarr_metadata import read_metadata, zarr_attributes


def version_of(image: Path) -> Version:
    """The version of OME-Zarr of an image; 0.4 also stands for earlier ones."""
    return "0.5" if (image / "zarr.json").is_file() else "0.4"


def write_label(
    image: Path,
    name: str,
    levels: Sequence[Pixels],
    values: NDArray[Any] | None,
    *,
    by: Reduction,
    about: Mapping[str, Any] | None,
    threads: int,
) -> None:
    """Writes a label image in the version of OME-Zarr that the image has.

    Args:
        image: the image's group.
        name: of the label.
        levels: [(Z,) Y, X], integers, from fine to coarse; the first has the image's pixels.
        values: what to write for each value of ``levels``; None: the same.
        by: how the coarser levels were made.
        about: provenance, for the label's attributes.

    Raises:
        UserError: the image has other pixels, or its metadata are damaged.
    """
    version, was = version_of(image), own_labels.before(image) or own_labels.as_it_is(image)
    pyramid = Pyramid(tuple(tuple(level.shape) for level in levels), None)
    scales = _placed(image, pyramid, name, version, by)
    # As in the labels of our own stores.
    label = {"version": version, "source": {"image": "../../"}}
    ome = group_metadata(version, {"multiscales": scales, "image-label": label})
    attributes = {**ome, "unet": {"made_by": about}}
    times = own_labels.times_kept(image)
    try:
        with replacing(image / own_labels.LABELS / name) as path:
            path.unlink()
            write_group(path, attributes, version)
            (path / own_labels.MARK).write_text(json.dumps(was.to_json()), encoding="utf-8")
            dtype = levels[0].dtype if values is None else values.dtype
            made = new_levels(path, pyramid, dtype, 1, version, lead=())
            for source, target in zip(levels, made, strict=True):
                regions = write_regions(target.shape, 1)
                copy = partial(_copied, source, target, values)
                for _ in ordered(copy, regions, threads, what=name, total=len(regions)):
                    pass
        _list(image / own_labels.LABELS, name, version)
    finally:
        own_labels.restore_times(times)


def _copied(source: Pixels, target: ZarrArray, values: NDArray[Any] | None, region: Slices) -> None:
    pixels = np.asarray(source[region])
    target[region] = pixels if values is None else values[pixels]


def _placed(
    image: Path, pyramid: Pyramid, name: str, version: Version, by: Reduction
) -> list[dict[str, Any]]:
    """The ``multiscales`` of a label that lies where its image lies: with the scale, the units and
    the translation of the image, whatever they are."""
    (made,) = pyramid.multiscales(name, version, channels=False, by=by)
    try:
        own = zarr_attributes(image)["multiscales"][0]
        axes = [a if isinstance(a, dict) else {"name": a, "type": "space"} for a in own["axes"]]
        names = [str(axis["name"]).lower() for axis in axes]
        at = [names.index(letter) for letter in pyramid.axes]
        first = own["datasets"][0]
        shape = _shape(image / str(first["path"]))
        if tuple(shape[k] for k in at) != pyramid.shapes[0]:
            size = " x ".join(map(str, pyramid.shapes[0]))
            raise UserError(f"{image}: has no longer {size} pixels; run the manifest stage again")
        scale, shift = _moves(first, at)
        made["axes"] = [axes[k] for k in at]
        for level in made["datasets"]:
            factor, offset = _moves(level, range(len(at)))
            moved = [o * s + t for o, s, t in zip(offset, scale, shift, strict=True)]
            moves = [
                {"type": "scale", "scale": [f * s for f, s in zip(factor, scale, strict=True)]}
            ]
            if any(moved):
                moves.append({"type": "translation", "translation": moved})
            level["coordinateTransformations"] = moves
        if own.get("coordinateTransformations"):
            scale, shift = _moves(own, at)
            made["coordinateTransformations"] = [
                {"type": "scale", "scale": scale}, {"type": "translation", "translation": shift},
            ]  # fmt: skip
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{image}: its metadata are damaged ({type(error).__name__})") from None
    return [made]


def _moves(entry: Mapping[str, Any], at: Sequence[int]) -> tuple[list[float], list[float]]:
    """Scale and translation along these axes."""
    found: dict[str, Any] = {}
    for move in entry.get("coordinateTransformations") or ():
        found[move["type"]] = move.get(move["type"])
    scale, shift = found.get("scale"), found.get("translation")
    return (
        [float(scale[k]) if scale else 1.0 for k in at],
        [float(shift[k]) if shift else 0.0 for k in at],
    )


def _shape(level: Path) -> list[int]:
    file = level / ("zarr.json" if (level / "zarr.json").is_file() else ".zarray")
    return [int(n) for n in read_metadata(file)["shape"]]


def _list(folder: Path, name: str, version: Version) -> None:
    """Adds a label to the list of the image's labels; what else is in the list stays."""
    content: dict[str, Any]
    if version == "0.4":
        file, group = folder / ".zattrs", folder / ".zgroup"
        if not group.is_file():
            group.write_text(json.dumps({"zarr_format": 2}, indent=2), encoding="utf-8")
        content = read_metadata(file) if file.is_file() else {}
        listed = content
    else:
        file = folder / "zarr.json"
        new: dict[str, Any] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
        content = read_metadata(file) if file.is_file() else new
        attributes = content.setdefault("attributes", {})
        # Some writers put the list beside the attribute "ome".
        beside = "labels" in attributes and "ome" not in attributes
        listed = attributes if beside else attributes.setdefault("ome", {"version": version})
    names = listed.setdefault("labels", [])
    if name not in names:
        names.append(name)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
