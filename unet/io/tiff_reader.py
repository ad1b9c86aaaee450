"""Reads TIFF by region: tiled, striped, pyramidal (level 0), stacks, palettes, OME-TIFF, slides."""

from __future__ import annotations

import threading
import weakref
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from unet.errors import UserError, one_line
from unet.io.axes import KNOWN, DaskArray, Raw, block_shape
from unet.io.pixel_size import Declared, read_sizes
from unet.io.raw import CHECKED_FROM, OTHER_RATIO, RGB_NAMES, check_pixels, lazily
from unet.io.tiff_vendors import (
    MICROSCOPES,
    SLIDES,
    slide_image,
    slide_warnings,
    vendor_names,
    vendor_sizes,
)

Array = NDArray[Any]

# Largest compression factor by method (TIFF tag 259; in LZW a code of 12 bits stands for at most
# 3839 bytes). A header that claims more pixels than that is false.
_RATIOS = {1: 1, 5: 2600, 8: 1032, 32946: 1032, 32773: 64}
_NIS_PIXEL_SIZE = 65326  # Nikon NIS-Elements: micrometres per pixel, float64
# Photometric interpretations whose stored samples are not intensities.
_REFUSED = {
    5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a Bayer mosaic", 32844: "LogL",
    32845: "LogLuv",
}  # fmt: skip
_WHITE_IS_ZERO = 0
_ALPHA = (1, 2)  # values of the tag ExtraSamples
_RESOLUTIONS = (("Y", "YResolution"), ("X", "XResolution"))


class TiffSource:
    """One series or page of a TIFF file that can be sliced. The file is opened on first use, closed
    with the object, and opened again after unpickling."""

    def __init__(self, path: Path, index: int, by_page: bool) -> None:
        self.path, self.index, self.by_page = path, index, by_page
        self._lock = threading.Lock()
        self._array: Any = None
        array = self._opened()
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.chunks: tuple[int, ...] = array.chunks

    def _opened(self) -> Any:
        import zarr

        with self._lock:
            if self._array is None:
                file = tifffile.TiffFile(self.path)
                weakref.finalize(self, file.close)
                item: Any = (file.pages if self.by_page else file.series)[self.index]
                store = item.aszarr() if self.by_page else item.aszarr(level=0)
                self._array = zarr.open_array(store, mode="r")
            return self._array

    def __getitem__(self, region: Any) -> Array:
        try:
            return np.asarray(self._opened()[region])
        except (UserError, MemoryError):
            raise
        except Exception as error:
            text = one_line(error, 200)
            raise UserError(f"{self.path}: cannot be decoded ({text})") from error

    def __getstate__(self) -> tuple[Path, int, bool]:
        return (self.path, self.index, self.by_page)

    def __setstate__(self, state: tuple[Path, int, bool]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def read_tiff(path: Path, page: int | None, *, label: bool = False) -> Raw:
    """Opens a TIFF file; only page ``page`` if its pages differ in shape.

    Raises:
        UserError: damaged header, colour spaces other than grey, RGB, palette and YCbCr-JPEG,
            one file of an OME-TIFF set.
        Exception: any error of tifffile for a file that it cannot parse.
    """
    with tifffile.TiffFile(path) as file:
        series = file.series
        if not series:
            raise UserError(f"{path}: no image in the file")
        # Pages of different sizes, without a declared order: each is a separate image.
        by_page = len(series) > 1 and series[0].kind == "generic"
        if by_page:
            pages: Any = file.pages
            indices = [i for i, p in enumerate(pages) if not p.keyframe.is_reduced]
        elif series[0].kind in SLIDES:
            indices = [slide_image(path, series)]
        else:
            # Other kinds keep a thumbnail next to the image.
            indices = list(range(len(series) if series[0].kind in ("ome", "shaped") else 1))
        separate, chosen = len(indices), (page or 0) if len(indices) > 1 else 0
        kind = series[0].kind
        if not 0 <= chosen < separate:
            raise UserError(f"{path}: page {page} requested, but the file has {separate}")
        index = indices[chosen]
        item: Any = pages[index] if by_page else series[index]
        check_pixels(path, item.shape)
        _check_whole(path, item, [item] if by_page else _pages(path, item, page))
        key = item.keyframe
        axes = "".join(letter if letter in KNOWN else "?" for letter in item.axes)
        sizes, size_warnings = read_sizes(_declared_sizes(file, item, index), axes)
        names = vendor_names(file, item) or _channel_names(file, key, index)
        warnings = slide_warnings(series, index) if kind in SLIDES else ()
        _check_claim(path, item)
        alpha = _alpha(key) if "S" in axes else None
        palette = key.photometric == 3 and key.colormap is not None and not label
        colours = np.asarray(key.colormap) if palette else None
        # The meaning of a label's values does not depend on how they are displayed.
        white = not label and int(key.photometric) == _WHITE_IS_ZERO
        black = int(2**key.bitspersample - 1) if white else None
    source = TiffSource(path, index, by_page)
    array = lazily(source, block_shape(source.chunks, source.shape, axes))
    if colours is not None:
        array, axes, names = _coloured(array, colours), axes + "S", RGB_NAMES
        warnings += (
            "a palette file: its colours are read as the channels red, green and blue; if its "
            "values are intensities, save it as grey",
        )
    return Raw(
        array, axes, sizes, names, alpha, separate, black, False, warnings, size_warnings,
        together=kind in MICROSCOPES,
    )  # fmt: skip


def _check_whole(path: Path, item: Any, pages: Any) -> None:
    """Refuses colour spaces that are not intensities, parts of sets, and truncated files."""
    key = item.keyframe
    jpeg = key.compression in (6, 7, 33007, 34892)
    if key.photometric in _REFUSED or (key.photometric == 6 and not jpeg):
        name = _REFUSED.get(int(key.photometric), "YCbCr")
        raise UserError(f"{path}: {name} colours; save the file as RGB or grey")
    if getattr(item, "is_multifile", False):
        raise UserError(f"{path}: part of an OME-TIFF set of several files; save each image as one")
    for page in pages:
        if page is None:
            raise UserError(f"{path}: pages that its metadata declares are missing")
        if not page.dataoffsets:
            # tifffile would read zeros.
            raise UserError(f"{path}: the header says nowhere where pixels are; it is damaged")
        ends = np.add(page.dataoffsets, page.databytecounts, dtype=np.float64)
        size = page.parent.filehandle.size
        if ends.size and ends.max() > size:
            raise UserError(f"{path}: cut short ({size} bytes of {ends.max():.0f})")


def _pages(path: Path, series: Any, page: int | None) -> Any:
    """The pages of a series whose offsets must be checked to read the slice ``page``."""
    if series.dataoffset is not None:
        # Contiguous: only the first page has offsets, and the end is known without a scan.
        size, end = series.keyframe.parent.filehandle.size, series.dataoffset + series.nbytes
        if end > size:
            raise UserError(f"{path}: cut short ({size} bytes of {end})")
        return [series.keyframe]
    count = len(series.pages)
    if page is None or series.axes[0] in "YXCS" or count % series.shape[0]:
        return series.pages
    # Otherwise opening each slice of a long stack would scan the whole stack each time.
    step = count // series.shape[0]
    return series.pages[page * step : (page + 1) * step]


def _check_claim(path: Path, item: Any) -> None:
    """Refuses a header that claims more than the file can hold, before anything is allocated."""
    key = item.keyframe
    claimed = int(np.prod(item.shape, dtype=np.float64)) * key.dtype.itemsize
    ratio = _RATIOS.get(int(key.compression), OTHER_RATIO)
    # Bilevel and other packed samples take less than a byte each.
    packed = key.dtype.itemsize * 8 / max(1, key.bitspersample)
    if claimed > max(CHECKED_FROM, ratio * packed * path.stat().st_size):
        size = " x ".join(map(str, item.shape))
        raise UserError(f"{path}: the header claims {size} pixels, more than the file can hold")


def _coloured(indices: DaskArray, colours: Array) -> DaskArray:
    """Palette indices [...] -> uint8 colours [..., S = RGB] (16-bit entries reduced to 8 bits)."""
    import dask.array as da

    map_blocks: Any = da.map_blocks
    table = (np.ascontiguousarray(colours.T) >> 8).astype(np.uint8)

    def look_up(block: Array) -> Array:
        picked: Array = table[np.minimum(block, len(table) - 1)]
        return picked

    return map_blocks(
        look_up, indices, dtype=np.uint8, new_axis=[indices.ndim],
        chunks=(*indices.chunks, (3,)), meta=np.empty((0,) * (indices.ndim + 1), np.uint8),
    )  # fmt: skip


def _alpha(key: Any) -> int | None:
    """Index of the first extra sample that is declared as opacity."""
    extra = [int(value) for value in key.extrasamples]
    first = key.samplesperpixel - len(extra)
    return next((first + i for i, value in enumerate(extra) if value in _ALPHA), None)


def _channel_names(file: tifffile.TiffFile, key: Any, index: int) -> tuple[str, ...]:
    if file.is_ome:
        image = _ome_image(file, index)
        found = [] if image is None else image.findall("{*}Pixels/{*}Channel")
        if len(found) > 1 or key.samplesperpixel == 1:
            return tuple(channel.get("Name", "") for channel in found)
    if int(key.photometric) in (2, 6) and key.samplesperpixel >= 3:
        extra = ["alpha" if i == _alpha(key) else "" for i in range(3, key.samplesperpixel)]
        return (*RGB_NAMES, *extra)
    return ()


def _ome_image(file: tifffile.TiffFile, index: int) -> ElementTree.Element | None:
    try:
        images = ElementTree.fromstring(file.ome_metadata or "").findall("{*}Image")
    except ElementTree.ParseError:
        return None
    return images[index] if index < len(images) else None


def _declared_sizes(file: tifffile.TiffFile, item: Any, index: int) -> list[Declared]:
    """Pixel sizes along Z, Y, X that the file declares: in OME-XML, by ImageJ, by the maker of the
    microscope, or in resolution tags with a real unit."""
    key = item.keyframe
    if isinstance(item, tifffile.TiffPageSeries) and (sizes := vendor_sizes(file, item)):
        return sizes
    if file.is_ome:
        image = _ome_image(file, index)
        pixels = None if image is None else image.find("{*}Pixels")
        found = {} if pixels is None else pixels.attrib
        return [
            # The default unit of the schema.
            Declared(a, found.get(f"PhysicalSize{a}"), found.get(f"PhysicalSize{a}Unit", "µm"))
            for a in "ZYX"
        ]
    if file.is_imagej:
        metadata = file.imagej_metadata or {}
        units = {a: str(metadata.get(f"{a.lower()}unit", metadata.get("unit", ""))) for a in "ZYX"}
        values = {a: _inverse(key, tag) for a, tag in _RESOLUTIONS}
        values["Z"] = metadata.get("spacing")
        return [Declared(a, values[a], units[a]) for a in "ZYX"]
    if _NIS_PIXEL_SIZE in key.tags:
        value = key.tags[_NIS_PIXEL_SIZE].value
        # NIS-Elements writes -1 if nothing is calibrated.
        value = None if value == -1 else value
        return [Declared(a, value, "um", printed=True) for a in "YX"]
    tag = key.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "cm"}.get(int(tag.value)) if tag else None
    values = {a: None if unit is None else _inverse(key, name) for a, name in _RESOLUTIONS}
    return [Declared(a, values[a], unit, printed=True) for a in "YX"]


def _inverse(key: Any, name: str) -> float | None:
    """Units per pixel, from a tag with pixels per unit (a fraction); None if there is no tag."""
    tag = key.tags.get(name)
    if tag is None:
        return None
    try:
        above, below = tag.value
        return float(below) / float(above)
    except ZeroDivisionError:
        return None  # some software writes this for an unknown size
    except (TypeError, ValueError):
        return float("nan")
