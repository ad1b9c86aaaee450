"""Paths that name an array inside a file: ``a.h5::/raw``."""

from __future__ import annotations

import re
from pathlib import Path

# What stands between the file and the array, and a path that has it.
MARK = "::"
_INSIDE = re.compile(r"(.+\.(?:h5|hdf5|zarr))::(.+)", re.IGNORECASE | re.DOTALL)


def split_inside(path: Path) -> tuple[Path, str]:
    """The file of a path such as ``a.h5::/raw/0``, and the array inside it that it names (without
    slashes at its ends); the path itself and "" if it names none."""
    found = _INSIDE.fullmatch(str(path))
    if found is None:
        return path, ""
    return Path(found[1]), found[2].replace(MARK, "/").strip("/")


def with_inside(file: Path, inside: str) -> Path:
    """The path that names an array in a file, such as ``a.h5::raw::0``: without slashes, so that
    its last part is still the name of a file, and its parent the folder."""
    return file.with_name(MARK.join((file.name, *inside.strip("/").split("/"))))
