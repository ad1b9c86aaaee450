"""The measurements of preset auto on the training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.data.store import Prepared, add_image, add_labels, layout_of, new_image
from unet.training.auto import measure as measure_module
from unet.training.auto.choose import fingerprint_of

Image = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def store_of(
    folder: Path,
    images: Mapping[str, Image],
    spacing: Mapping[str, list[float]] | None = None,
    classes: tuple[str, ...] = ("background", "foreground"),
) -> tuple[Prepared, dict[str, Any]]:
    """A prepared store of image [C, *S], classes [*S] and instances, and its sentinel."""
    path = folder / "prepared.zarr"
    infos = {}
    for name, (image, labels, instances) in images.items():
        where = layout_of(labels.shape, tile=32, shard=2)
        with new_image(path, name) as group:
            add_image(group, image.shape[0], labels.shape, where)[...] = image
            add_labels(group, "classes", "uint8", labels.shape, where)[...] = labels
            if instances is not None:
                add_labels(group, "instances", "uint32", labels.shape, where)[...] = instances
        infos[name] = {
            "key": f"key of {name}", "shape": list(image.shape),
            "axes": "CYX" if labels.ndim == 2 else "CZYX",
            "pixel_size_um": (spacing or {}).get(name), "labelled": True, "group": "",
            "statistics": {},
        }  # fmt: skip
    zarr.open_group(path, mode="a", zarr_format=3)
    first = next(iter(images.values()))[0]
    sentinel = {
        "images": infos, "channels": first.shape[0], "class_names": list(classes),
        "class_values": None, "task": "instances", "normalize": {"method": "none"},
    }  # fmt: skip
    return Prepared(path), sentinel


def boxes(shape: tuple[int, ...], *places: tuple[slice, ...]) -> Image:
    """Numbered boxes: image (0 and 1), classes, instances (numbered from 7)."""
    instances = np.zeros(shape, dtype=np.uint32)
    for number, place in enumerate(places, start=7):
        instances[place] = number
    labels = (instances > 0).astype(np.uint8)
    return labels[None].astype(np.float32), labels, instances


def test_a_fingerprint_by_hand(tmp_path: Path) -> None:
    a = boxes((40, 50), np.s_[2:6, 3:13], np.s_[20:30, 20:26])
    b = boxes((60, 30), np.s_[0:9, 1:3], np.s_[30:31, 5:8])  # the last: 3 pixels, a speck
    c = boxes((40, 50))
    # Must not be read: it would change every number.
    test = boxes((90, 91), np.s_[0:80, 0:80])
    store, sentinel = store_of(
        tmp_path, {"a": a, "b": b, "c": c, "t": test}, {"a": [0.5, 0.25], "b": [0.7, 0.35]}
    )
    found = fingerprint_of(store, sentinel, ["a", "b", "c"])
    assert (found.images, found.channels, found.dims) == (3, 1, 2)
    assert (found.shape_min, found.shape_median, found.shape_max) == ((40, 30), (40, 50), (60, 50))
    assert found.pixels == 2000 + 1800 + 2000
    assert found.seen == 1
    # The median of those that are known.
    assert found.spacing == pytest.approx((0.6, 0.3))
    foreground = 40 + 60 + 18 + 3
    assert found.shares == pytest.approx((1 - foreground / 5800, foreground / 5800))
    # A 48th of the pixels is foreground: above the 97.9th percentile.
    assert found.intensities == ((0.0, 0.0, 1.0),)
    (objects,) = found.objects
    assert (objects.name, objects.number, objects.spanning) == ("instances", 3, 0)
    assert (objects.median, objects.common, objects.largest) == ((9, 6), (10, 10), (10, 10))


def test_no_pixel_size_and_no_objects(tmp_path: Path) -> None:
    store, sentinel = store_of(tmp_path, {"a": boxes((32, 32))})
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.spacing is None
    assert found.shares == (1.0, 0.0)
    assert [(o.number, o.common) for o in found.objects] == [(0, (0, 0))]
    with pytest.raises(ValueError, match="no images"):
        fingerprint_of(store, sentinel, [])


def test_components_of_classes(tmp_path: Path) -> None:
    """A net and its meshes: the net spans the image, the ignored pixels are no class."""
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[1:19, 1:19] = labels[1:19, 20:39] = labels[20:39, 5:15] = 1
    labels[39, :] = 255
    names = ("membrane", "cell")
    store, sentinel = store_of(
        tmp_path, {"a": (np.zeros((1, 40, 40), np.float32), labels, None)}, classes=names
    )
    found = fingerprint_of(store, sentinel, ["a"])
    membrane, cell = found.objects
    assert (membrane.name, membrane.number, membrane.spanning) == ("membrane", 0, 1)
    assert (cell.name, cell.number, cell.spanning) == ("cell", 3, 0)
    assert (cell.common, cell.median) == ((19, 19), (18, 18))
    cells = 18 * 18 + 18 * 19 + 19 * 10
    assert found.shares == pytest.approx((1 - cells / 1560, cells / 1560))


def test_windows_bound_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that a window cuts are left out, those at the image's own edge are not."""
    monkeypatch.setattr(measure_module, "PIXELS_AT_ONCE", 32 * 32)
    image = boxes((32, 64), np.s_[0:4, 0:4], np.s_[10:20, 25:40], np.s_[10:15, 50:64])
    store, sentinel = store_of(tmp_path, {"a": image})
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.seen == 1
    assert (found.objects[0].number, found.objects[0].largest) == (2, (5, 14))
    monkeypatch.setattr(measure_module, "PIXELS_IN_ALL", 32 * 32)
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.seen == 0.5
    assert found.pixels == 32 * 64


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(20, 500))
def test_windows_cover_an_image_once(shape: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure_module, "PIXELS_AT_ONCE", most)
        windows = measure_module._windows(np.array(shape))
    seen = np.zeros(shape, dtype=int)
    for window in windows:
        assert seen[window].size <= most
        seen[window] += 1
    assert (seen == 1).all()


def test_large_instance_numbers_are_no_large_lists() -> None:
    labels = np.array([[0, 4_000_000_000], [4_000_000_000, 9]], dtype=np.uint32)
    assert measure_module._compact(labels).tolist() == [[0, 2], [2, 1]]
    assert measure_module._compact(labels[1:]).tolist() == [[2, 1]]
