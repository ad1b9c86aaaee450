"""An image with one file per channel: a single path stands for all of its files.

There are two forms: ``case_????.tif`` (nnU-Net: numbers from 0000) and ``A1_c{DAPI,GFP}.tif``,
which lists what differs. Several lists in a path are read side by side: ``{a,b}/x_{1,2}.tif`` are
``a/x_1.tif`` and ``b/x_2.tif``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unet.errors import UserError
from unet.io.array_paths import split_inside

_NUMBERED = re.compile(r"_\?{4}(?=\.)")
_LISTED = re.compile(r"\{([^{}]*,[^{}]*)\}")


def parts_of(image: Path) -> list[Path]:
    """The files of an image, in channel order: itself, one per channel, or the one that holds the
    array that the path names.

    Raises:
        UserError: there is no file of the form ``case_????.tif``.
    """
    text = str(image)
    numbered, names = _NUMBERED.search(image.name), listed_names(image)
    if not (numbered or names) or image.exists():
        return [split_inside(image)[0]]
    if names:
        return [Path(_filled(text, channel)) for channel in zip(*names, strict=True)]
    found: list[Path] = []
    while (file := image.with_name(image.name.replace("????", f"{len(found):04d}"))).exists():
        found.append(file)
    if not found:
        raise UserError(f"{image}: no such files")
    return found


def listed_names(image: Path) -> list[list[str]]:
    """The lists in a path, all of the same length; none if it has no other form than its own."""
    found = [text.split(",") for text in _LISTED.findall(str(image))]
    return found if len({len(names) for names in found}) == 1 else []


def _filled(text: str, names: Sequence[str]) -> str:
    left = iter(names)
    return _LISTED.sub(lambda _: next(left), text)


def plain_name(path: str) -> str:
    """A path without the part that stands for the channels: ``a.tif`` for ``a_????.tif``."""
    return re.sub(r"[-_ ]?[A-Za-z]?\{[^{}]*,[^{}]*\}", "", _NUMBERED.sub("", path))


def check_all_there(image: Path, files: Sequence[Path]) -> None:
    """Checks that no channel is missing.

    Raises:
        UserError: a file does not exist; the line names it.
    """
    if missing := [file for file in files if not file.exists()]:
        # Channels may be folders, so their names are shown, too.
        top = next(p for p in files[0].parents if all(p in file.parents for file in files))
        names = ", ".join(file.relative_to(top).as_posix() for file in missing)
        raise UserError(f"{image}: no file {names}; an image needs the files of all its channels")
