"""The arguments of ``unet predict``, and the images that they stand for."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unet.cli.arguments import axes, length, lengths, number, positive
from unet.config.choices import METHOD_TABLE
from unet.config.sections import StitchSection
from unet.errors import UserError
from unet.prediction.apply.applied_images import top_folder
from unet.prediction.apply.chosen_settings import OUTLINES, Requested
from unet.prediction.apply.result_folder import PAGES

if TYPE_CHECKING:
    from unet.data.file_names import Found

log = logging.getLogger("unet")

# Names of the results in the output folder, and files that show that this command wrote them.
RESULTS = ("masks", "segmentation.zarr", "work", *OUTLINES, *PAGES)
MARKERS = ("predict.json", "work/images.csv")


def add_request(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet predict``."""
    p.epilog = (
        "examples:\n"
        "  unet predict results/nuclei/unet-border images -o segmented\n"
        "  unet predict model.pt 'plate1/*.tif' extra.tif -o segmented --threshold 0.4"
    )
    p.add_argument(
        "model", type=Path, metavar="MODEL",
        help="model.pt, the results folder of a fold, that of a model (all its folds together), or "
        "a package of the BioImage Model Zoo (.zip)",
    )  # fmt: skip
    p.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, globs or patterns")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    p.add_argument(
        "--model", dest="with_model", type=Path, action="append", default=[], metavar="MODEL",
        help="one more model, whose probabilities are averaged with the first one's (repeatable)",
    )  # fmt: skip
    p.add_argument("--threshold", type=_share, help="minimum foreground probability")
    p.add_argument("--min-size", type=_count, help="drop objects smaller than this (image pixels)")
    p.add_argument("--method", choices=sorted(METHOD_TABLE), help="how objects are made")
    p.add_argument("--grow-px", type=_count, help="method grow: largest distance (image pixels)")
    p.add_argument(
        "--geojson", action=argparse.BooleanOptionalAction,
        help="also write outlines of objects as GeoJSON (QuPath, GIS)",
    )  # fmt: skip
    p.add_argument(
        "--rois", action=argparse.BooleanOptionalAction,
        help="also write outlines of objects as ImageJ ROIs",
    )  # fmt: skip
    p.add_argument(
        "--write-back", type=_label, metavar="labels/NAME",
        help="also write the result as this label into the OME-Zarr images or plates",
    )  # fmt: skip
    p.add_argument(
        "--tta", action=argparse.BooleanOptionalAction,
        help="average over 8 symmetries (takes 8 times as long)",
    )  # fmt: skip
    p.add_argument("--tile", type=_sizes, help="largest window in px, or one per axis: 64,256,256")
    p.add_argument("--float32", action="store_true", help="compute and store in 32 bits")
    p.add_argument(
        "--pixel-size", type=lengths, metavar="UM",
        help="micrometres per pixel, or one value per axis (2,0.5,0.5); overrides the files",
    )  # fmt: skip
    p.add_argument("--axes", type=axes, help="axes of files that do not declare them, such as CYX")
    p.add_argument("--channels", type=_names, help="channels to use, numbers from 0 or names: 0,2")
    p.add_argument("--stack", action="store_true", help="each page of a file is an image")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")
    p.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="CPU threads")
    p.add_argument("--memory-gb", type=length, default=4.0, help="memory for pixels (default 4)")
    p.add_argument(
        "--keep", action="store_true", help="keep OUT/work: a later call predicts only new images"
    )
    p.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True,
        help="write index.html and overview.png, to look at the result",
    )  # fmt: skip
    p.add_argument("--log", type=Path, help="also write all messages to this file")


def _share(text: str) -> float:
    return number(text, 0, 1, "a number above 0 and below 1")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number from 0")
    return int(text)


def _label(text: str) -> str:
    try:
        StitchSection(write_back=text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text}; write labels/ and a name, such as labels/nuclei"
        ) from None
    return text


def _sizes(text: str) -> int | list[int]:
    found = [positive(part) for part in text.split(",")]
    if not all(8 <= size <= 16384 for size in found) or len(found) > 3:
        raise argparse.ArgumentTypeError(f"got {text}; write 8 to 16384, or such a number per axis")
    return found[0] if len(found) == 1 else found


def _names(text: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in text.split(",")]


def requested(args: argparse.Namespace) -> Requested:
    """The arguments that decide what is computed."""
    names = {item.name for item in fields(Requested)} & set(vars(args))
    return Requested(**{name: getattr(args, name) for name in names})


def image_files(given: Sequence[str], output: Path) -> list[tuple[str, Path]]:
    """Id and path of each image of :func:`found_images`."""
    return [(name, item.path) for name, item in found_images(given, output)]


def found_images(given: Sequence[str], output: Path) -> list[tuple[str, Found]]:
    """Id of each image of the files, folders, globs and patterns, and where it is, sorted by id.

    Args:
        output: folder for the results. Files that this command wrote, to this or another folder,
            are skipped.

    Raises:
        UserError: one of the patterns matches no image.
    """
    from unet.data.file_names import find, safe_id, spelling, warn_of_label_names

    def warn(text: str) -> None:
        log.warning("warning: %s", text)

    found: dict[Path, Found] = {}
    for pattern in given:
        for item in find(pattern, Path.cwd(), "IMAGES", warn):
            found.setdefault(item.path.absolute(), item)
    written = _written(found, output)
    if written:
        log.info(
            "skipped %d files that are results of this command, such as %s",
            *(len(written), written[0]),
        )
    for path in written:
        del found[path]
    names = {path: item.name for path, item in found.items()}
    if not names:
        raise UserError(
            f"IMAGES: all {len(written)} files are results of this command, such as {written[0]}; "
            "give images"
        )
    warn_of_label_names(list(found.values()), "IMAGES", warn)
    if len({spelling(name) for name in names.values()}) < len(names):
        # The same names occur in different folders: include the folders.
        top = top_folder(list(names))
        names = {p: p.relative_to(top).with_name(_last(n)).as_posix() for p, n in names.items()}
    return sorted(
        ((safe_id(name), replace(found[path], path=path)) for path, name in names.items()),
        key=lambda pair: (pair[0], pair[1].path),
    )


def _written(paths: Iterable[Path], output: Path) -> list[Path]:
    """The paths that this command wrote, to this output folder or another one."""
    ours = {output.absolute().resolve(): True}

    def is_ours(folder: Path) -> bool:
        folder = folder.resolve()
        if folder not in ours:
            ours[folder] = any((folder / marker).is_file() for marker in MARKERS)
        return ours[folder]

    return [
        path
        for path in paths
        if any(part.name in RESULTS and is_ours(part.parent) for part in (path, *path.parents))
    ]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
