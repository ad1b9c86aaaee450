"""Lists the paths that match a glob, or may match a pattern with placeholders."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from unet.files import PLACEHOLDER, is_pattern, is_sheet
from unet.io.array_paths import split_inside
from unet.io.formats import format_of

_MAGIC = re.compile(r"(\*\*/|\*|\?|\[[^\]]+\])")
# Sort key: the same order as that of paths, but much faster.
_parts = attrgetter("parts")


def glob_paths(where: Path) -> tuple[Path, list[Path]]:
    """The part of a glob before its first wildcard, and the sorted paths that match it; for a
    pattern with placeholders, those that may match."""
    fixed = fixed_part(where)
    below = where.relative_to(fixed)
    if is_pattern(str(below)):
        # Together, since ** would be all folders.
        below = Path(re.sub(f"(?:{PLACEHOLDER.pattern})+", "*", str(below)))
    return fixed, sorted(set(_expanded(fixed, below.parts)), key=_parts)


def _expanded(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Paths below a folder that match the parts of a glob."""
    if "**" not in parts:
        # Not Path.glob: it finds hidden files.
        names = glob.iglob(str(Path(*parts)), root_dir=folder)  # noqa: PTH207
        yield from (folder / name for name in names)
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ("*",)
    for top in _expanded(folder, parts[:at]) if at else (folder,):
        for below in _folders(top):
            yield from _expanded(below, rest)


def _folders(top: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A folder and all folders below it, except hidden ones. Links to folders are followed (as in
    glob, unlike Path.glob), except a link to a folder that contains it, which would be endless."""
    place = top.resolve()
    if not top.is_dir() or place in above:
        return
    yield top
    for path in sorted(top.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from _folders(path, (*above, place))


def fixed_part(where: Path) -> Path:
    """The folders of a glob or pattern before its first wildcard; a folder itself; or the folder of
    a file."""
    where = split_inside(where)[0]
    pattern = is_pattern(str(where))
    for i, part in enumerate(where.parts):
        # A folder that really is called [2024] is not a pattern.
        magic = glob.has_magic(part) or (pattern and PLACEHOLDER.search(part))
        if magic and not Path(*where.parts[: i + 1]).exists():
            return Path(*where.parts[:i])
    return where.parent if format_of(where) or is_sheet(where.name) else where


def translated(pattern: str) -> str:
    """A regular expression for a glob, with one group for each wildcard."""
    parts = []
    for piece in _MAGIC.split(pattern):
        if piece == "**/":
            parts.append("((?:.*/)?)")
        elif piece == "*":
            parts.append("([^/]*)")
        elif piece == "?":
            parts.append("([^/])")
        elif _MAGIC.fullmatch(piece):
            parts.append("([" + ("^" + piece[2:-1] if piece[1] == "!" else piece[1:-1]) + "])")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)
