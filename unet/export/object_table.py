"""The table of objects: size, position, shape and intensity, computed from sums over blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from unet.export import object_shape
from unet.export.collected_sums import CollectedSums
from unet.export.object_sums import Floats, Ints, Sums

# Objects measured at once, and number of such ranges in the cache: outlines request objects in the
# order in which they end.
RANGE, RANGES = 1 << 12, 4
# Columns in front of the measures.
KEYS = ("image", "label", "class")


@dataclass(frozen=True, eq=False)
class Scale:
    """Converts an image's stored intensities back to those of its file: v * factor + shift.

    Attributes:
        shift, factor: one per channel.
    """

    shift: Floats
    factor: Floats

    @classmethod
    def of(cls, statistics: object, channels: int) -> Scale:
        """From the statistics of an image's normalisation; without any, values stay as stored."""
        if isinstance(statistics, dict) and len(statistics.get("shift", ())) == channels:
            return cls(np.array(statistics["shift"], float), np.array(statistics["scale"], float))
        return cls(np.zeros(channels), np.ones(channels))

    def restored(self, stored: Floats) -> Floats:
        """Intensities [L, C] of the file."""
        scaled = stored * self.factor
        found = scaled + self.shift
        # A difference within float32's precision is 0.
        return np.where(np.abs(found) < 2.0**-22 * np.abs(self.shift), 0.0, found)


def columns(dims: int, channels: int) -> list[str]:
    """The table's header for images with this many spatial axes and channels.

    Pixel coordinates count from 0 at the centre of the first pixel; the end of a bounding box is
    exclusive. Columns in micrometres are empty if the pixel size is unknown.
    """
    return [*KEYS, *(name for name, _ in _formats(dims, channels))]


def _formats(dims: int, channels: int) -> list[tuple[str, str]]:
    """Name and format of the numeric columns."""
    axes = "zyx"[-dims:]
    whole, rounded = ".0f", ".6g"
    flat = dims == 2
    edge = ("perimeter_px", "perimeter_um") if flat else ("surface_px", "surface_um2")
    lengths = [f"{name}_axis_{unit}" for name in _axis_names(dims) for unit in ("px", "um")]
    return [
        ("area_px" if flat else "volume_px", whole),
        ("area_um2" if flat else "volume_um3", rounded),
        *((f"centroid_{a}_px", ".3f") for a in axes),
        *((f"centroid_{a}_um", rounded) for a in axes),
        *((f"bbox_{a}0", whole) for a in axes),
        *((f"bbox_{a}1", whole) for a in axes),
        *((f"mean_intensity_c{c}", rounded) for c in range(channels)),
        *((f"std_intensity_c{c}", rounded) for c in range(channels)),
        *((f"min_intensity_c{c}", rounded) for c in range(channels)),
        *((f"max_intensity_c{c}", rounded) for c in range(channels)),
        ("touches_border", whole),
        *((name, rounded) for name in edge),
        ("equivalent_diameter_px", rounded),
        ("equivalent_diameter_um", rounded),
        *((name, rounded) for name in lengths),
        *((name, rounded) for name in (("eccentricity", "orientation_rad") if flat else ())),
    ]


class Table:
    """The cells of :func:`columns` for the objects of one image.

    Args:
        found: sums over the whole image. Measures are computed on request, for a few thousand
            objects at once.
        size: the image's spatial shape ((Z,) Y, X).
        pixel_size_um: micrometres along its axes, None = unknown.
        scale: converts its intensities.
    """

    def __init__(
        self,
        image: str,
        found: CollectedSums,
        size: Sequence[int],
        pixel_size_um: Sequence[float] | None,
        scale: Scale,
    ) -> None:
        self._image, self._found = image, found
        self._size, self._pixel_size_um, self._scale = tuple(size), pixel_size_um, scale
        self._formats = _formats(len(size), len(scale.shift))
        self._row = " ".join(f"%{form}" for _, form in self._formats)
        self._values = lru_cache(RANGES)(self._range)
        self._unknown = ["0", "" if pixel_size_um is None else "0"]

    @property
    def labels(self) -> Ints:
        """Labels of the objects, int64 [L], sorted."""
        return self._found.labels

    def _range(self, number: int) -> Floats:
        """The values [L, columns] of the objects in a range."""
        found = self._found.part(number * RANGE, (number + 1) * RANGE)
        measured = _measured(found, self._size, self._pixel_size_um, self._scale)
        # Turns -0 into 0.
        return np.asarray(np.column_stack(measured) + 0.0)

    @property
    def high(self) -> Ints:
        """Last pixel along each axis, int64 [L, D]."""
        starts = range(0, len(self.labels), RANGE)
        found = [self._found.part(start, start + RANGE).high for start in starts]
        return np.concatenate([np.empty((0, len(self._size)), np.int64), *found])

    def close(self) -> None:
        """Removes the file on disk; after that no object can be read."""
        self._found.close()

    def rows(self, names: Iterable[tuple[int, int, str]]) -> Iterator[list[str]]:
        """Rows of text.

        Args:
            names: for each row, the label to look up, the label to write, and the class. A label
                that is missing from the image has size 0 and otherwise empty cells.
        """
        for label, written, name in names:
            cells = self._cells(label)
            if cells is None:
                cells = [*self._unknown, *[""] * (len(self._formats) - len(self._unknown))]
            yield [self._image, str(written), name, *cells]

    def measures(self, label: int) -> dict[str, float]:
        """The known measures of an object, without its position."""
        cells = self._cells(label) or []
        return {
            name: float(cell)
            for (name, _), cell in zip(self._formats, cells, strict=False)
            if cell and not name.startswith(("centroid_", "bbox_"))
        }

    def _cells(self, label: int) -> list[str] | None:
        i = int(self.labels.searchsorted(label))
        if i == len(self.labels) or self.labels[i] != label:
            return None
        values = self._values(i // RANGE)[i % RANGE].tolist()
        cells = (self._row % tuple(values)).split(" ")
        return cells if "nan" not in cells else ["" if c == "nan" else c for c in cells]


def _axis_names(dims: int) -> tuple[str, ...]:
    return ("major", "minor") if dims == 2 else ("major", "middle", "minor")


def _measured(
    found: Sums, size: Sequence[int], pixel_size_um: Sequence[float] | None, scale: Scale
) -> list[Floats]:
    """The columns of :func:`_formats`, each [L] or several as [L, n]; NaN = unknown."""
    dims, count = len(size), found.size[:, None]
    pixels = _Shapes.of(found, (1.0,) * dims)
    microns = _Shapes.of(found, pixel_size_um) if pixel_size_um else pixels.unknown()
    # With pixels that are not square, angles need the pixel size, if it is known.
    seen = microns if pixel_size_um else pixels
    touches = ((found.low == 0) | (found.high == np.array(size) - 1)).any(axis=1)
    lengths = np.stack([pixels.axes, microns.axes], axis=2).reshape(len(count), 2 * dims)
    return [
        pixels.size,
        microns.size,
        pixels.centre,
        microns.centre,
        found.low.astype(np.float64),
        found.high + 1.0,
        scale.restored(found.total / count),
        np.sqrt(found.spread / count) * np.abs(scale.factor),
        scale.restored(found.least),
        scale.restored(found.most),
        touches.astype(np.float64),
        pixels.edge,
        microns.edge,
        pixels.diameter,
        microns.diameter,
        lengths,
        *([seen.eccentricity, seen.orientation] if dims == 2 else []),
    ]


@dataclass(frozen=True, eq=False)
class _Shapes:
    """The measures that depend on the size of a pixel, each [L] or [L, D]."""

    size: Floats
    centre: Floats
    edge: Floats
    diameter: Floats
    axes: Floats
    eccentricity: Floats
    orientation: Floats

    @classmethod
    def of(cls, found: Sums, spacing: Sequence[float]) -> _Shapes:
        edge = object_shape.perimeter if len(spacing) == 2 else object_shape.surface
        ellipses = object_shape.ellipses(found, spacing)
        return cls(
            size=np.asarray(found.size * float(np.prod(spacing)), np.float64),
            centre=found.positions / found.size[:, None] * np.array(spacing),
            edge=edge(found.faces, spacing),
            diameter=object_shape.equivalent_diameter(found.size, spacing),
            axes=ellipses.axes,
            eccentricity=ellipses.eccentricity,
            orientation=ellipses.orientation,
        )

    def unknown(self) -> _Shapes:
        names = (field.name for field in fields(self))
        return _Shapes(*(np.full_like(getattr(self, name), np.nan) for name in names))
