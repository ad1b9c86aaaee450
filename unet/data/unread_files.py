"""Files of a folder that are not read: other kinds, and those with a better one beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unet.data.dataset_warnings import Warn, ignore_warning
from unet.errors import how_many
from unet.io.formats import INEXACT, USUAL, WHOLE, format_of, stem

# Files that often lie next to images and are ignored without a warning.
_ASIDE = frozenset(
    {
        ".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".ppt", ".pptx", ".html", ".htm",
        ".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".json", ".xml", ".yaml",
        ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".lnk", ".url", ".py", ".ipynb", ".m",
        ".r", ".ijm", ".sh", ".bat", ".md5", ".sha256", ".roi", ".tmp", ".bak", ".part",
    }
)  # fmt: skip
# JPEG is the last choice.
_LAST = 2


def unread_kinds(paths: Iterable[Path]) -> Counter[str]:
    """Number of the files that may be images but have no reader, by ending."""
    kinds: Counter[str] = Counter()
    for path in paths:
        suffix = path.suffix.lower()
        aside = not suffix or suffix in _ASIDE or path.name.startswith(".")
        if not aside and format_of(path) not in WHOLE and not path.is_dir():
            kinds[suffix] += 1
    return kinds


def warn_of_unread_files(paths: Iterable[Path], key: str, warn: Warn) -> None:
    """Warns about files that may be images but have no reader."""
    if warn is ignore_warning:
        return  # there may be millions
    if kinds := unread_kinds(paths):
        count, listed = kinds.total(), ", ".join(sorted(kinds))
        many = f"{count} files of other kinds ({listed}) are" if count > 1 else (
            f"1 file of another kind ({listed}) is"
        )  # fmt: skip
        warn(
            f"{key}: {many} not read; convert to TIFF or OME-Zarr (Fiji, bioformats2raw), or "
            "write a glob such as dir/*.tif if you do not need them"
        )


def second_choices(paths: Iterable[Path], *, labels: bool = False) -> dict[Path, Path | None]:
    """The files that are left out, each with the one that is read in its place.

    If files of one folder have the same name in several formats, TIFF, PNG and OME-Zarr come first
    and JPEG comes last. Among labels, a JPEG is left out whenever there is another file (then there
    is no one file in its place: None), since it cannot hold a label.

    Args:
        paths: files with a reader.
    """
    kinds = {path: _rank(path) for path in paths}
    if len(set(kinds.values())) < 2:
        return {}
    best: dict[tuple[Path, str], Path] = {}
    for path, rank in kinds.items():
        key = (path.parent, stem(path).lower())
        if key not in best or rank < kinds[best[key]]:
            best[key] = path
    left: dict[Path, Path | None] = {}
    for path, rank in kinds.items():
        better = best[path.parent, stem(path).lower()]
        if rank > kinds[better]:
            left[path] = better
        elif labels and rank == _LAST:
            left[path] = None
    return left


def _rank(path: Path) -> int:
    kind = format_of(path)
    if kind in INEXACT:
        return _LAST
    return 0 if kind in USUAL else 1


def left_out_lines(left: dict[Path, Path | None]) -> list[str]:
    """Warnings that count the files left out; none if there are none."""
    beside = [(path, other) for path, other in left.items() if other is not None]
    alone = [path for path, other in left.items() if other is None]
    lines = []
    if beside:
        path, other = min(beside)
        are = "is" if len(beside) == 1 else "are"
        lines.append(
            f"{how_many(len(beside), 'file')} {are} not read, such as {path.name}, because "
            f"{other.name} beside it has the same name; for another choice write a glob such as "
            f"*{path.suffix}"
        )
    if alone:
        are = "is" if len(alone) == 1 else "are"
        lines.append(
            f"{how_many(len(alone), 'JPEG file')} {are} not read, such as {min(alone).name}: JPEG "
            "changes values, so it cannot hold a label"
        )
    return lines
