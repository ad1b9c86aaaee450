"""Finding files by folder or glob, the names that match them to each other, and image ids."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from unet.data.dataset_warnings import Warn, unheard
from unet.errors import UserError
from unet.files import is_sheet
from unet.io.formats import SUFFIXES, stem
from unet.io.zarr_metadata import members

_MAGIC = re.compile(r"(\*\*/|\*|\?|\[[^\]]+\])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_ID = 100
# OME-Zarr keeps this folder of a collection for itself.
_TAKEN = "OME"
# Beside images, but no images themselves: nobody misses them.
_ASIDE = frozenset(
    {
        ".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".ppt", ".pptx", ".html", ".htm",
        ".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".json", ".xml", ".yaml",
        ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".lnk", ".url", ".py", ".ipynb", ".m",
        ".r", ".ijm", ".sh", ".bat", ".md5", ".sha256", ".roi", ".tmp", ".bak", ".part",
    }
)  # fmt: skip
# How tools name the labels that they put beside images: img_000_masks.tif (Cellpose) and others.
_LIKE_LABELS = re.compile(
    r"(.+?)([_-](?:cp_masks?|masks?|labels?|labelled|seg|segmentation|gt|instances))", re.IGNORECASE
)


@dataclass(frozen=True)
class Found:
    """A file with what it may be matched by.

    Attributes:
        path: as found.
        name: its path below the glob's fixed part (or the folder), without the format's suffix.
        wild: the texts that the glob's wildcards stand for; empty for a folder.
        group, columns: the well of a field of a plate, and what a sheet would say of it.
    """

    path: Path
    name: str
    wild: tuple[str, ...] = ()
    group: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def is_image(path: Path) -> bool:
    """Whether a file (or .zarr folder) has a suffix that there is a reader for, and is shown."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


# Orders paths as they order themselves, in a fraction of the time.
_parts = attrgetter("parts")


def composed(text: str) -> str:
    """The text with each letter and its accents in one character: macOS takes them apart in the
    names of files, and what looks the same must be the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spelling(name: str) -> str:
    """The same for names that some file system takes for one."""
    return composed(name).lower()


# By what an image and a label may be matched, in this order of preference.
MATCHES: tuple[Callable[[Found], tuple[str, ...]], ...] = (
    lambda f: (composed(f.name),),
    lambda f: (composed(f.name.rpartition("/")[2]),),
    lambda f: tuple(map(composed, f.wild)) or (composed(f.name),),
)


def find(pattern: str, root: Path, key: str, warn: Warn = unheard) -> list[Found]:
    """Images under a folder or that match a glob, in the order of their paths; the images of plates
    and collections in place of these.

    Args:
        pattern: absolute, or relative to ``root``. A folder stands for all images right in it.
        key: of the config, for messages.
        warn: told which files are not read.

    Raises:
        UserError: no such folder, nothing matches, or two files with one name.
    """
    where = root / Path(pattern).expanduser()
    if glob.has_magic(str(where)) and not where.exists():
        found = _glob(where, key, warn)
    elif where.is_dir() and where.suffix.lower() != ".zarr" and members(where) is None:
        paths = sorted(where.iterdir(), key=_parts)
        tell_unread(paths, key, warn)
        found = [Found(p, stem(p)) for p in paths if is_image(p)]
    elif where.exists():
        found = [Found(where, stem(where))]
    else:
        raise UserError(f"{key}: no folder or file {where}; write a folder, a glob or a sheet.csv")
    found = _named(found, key, warn)
    alone = len(found) == 1 and found[0].path == where
    found = [one for item in found for one in _unfolded(item, alone)]
    if not found:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{key}: {where} matches no image ({kinds}); write dir/*.tif or a folder")
    _check_unique(found, key)
    return found


def _unfolded(item: Found, alone: bool) -> list[Found]:
    """The images of a plate or a collection (alone: the one that was asked for); else the item."""
    if not (alone or item.path.suffix.lower() == ".zarr") or not item.path.is_dir():
        return [item]
    parts = members(item.path)
    if parts is None:
        return [item]
    if len(parts) == 1 and not parts[0].well:
        return [Found(parts[0].path, item.name)]
    before = "" if alone and any(part.well for part in parts) else f"{item.name}-"
    return [
        Found(p.path, before + p.name, (), before + p.well if p.well else "", p.columns)
        for p in parts
    ]


def _named(found: list[Found], key: str, warn: Warn) -> list[Found]:
    """Those whose name can be written into a table.

    Raises:
        UserError: there is no other.
    """
    # What is not text in a name, Python keeps as half of a surrogate pair.
    strange = [item for item in found if _SURROGATE.search(item.name)]
    if not strange:
        return found
    name = strange[0].path.name
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        # To go on without the file would give other results than in another locale.
        raise UserError(
            f"{key}: {name!a}: this locale takes names of files for {encoding}; run under "
            "LC_ALL=C.UTF-8"
        )
    told = f"{name!a}: a file name that is not UTF-8; rename it"
    if len(strange) == len(found):
        raise UserError(f"{key}: {told}")
    warn(f"{key}: {len(strange)} of {len(found)} files are not read; {told}")
    return [item for item in found if item not in strange]


def tell_unread(paths: Iterable[Path], key: str, warn: Warn) -> None:
    """Tells of files that may be meant as images and that there is no reader for."""
    if warn is unheard:
        return  # there may be millions
    kinds: Counter[str] = Counter()
    for path in paths:
        suffix = path.suffix.lower()
        aside = not suffix or suffix in SUFFIXES or suffix in _ASIDE or path.name.startswith(".")
        if not aside and not path.is_dir():
            kinds[suffix] += 1
    if kinds:
        count, listed = kinds.total(), ", ".join(sorted(kinds))
        many = f"{count} files of other kinds ({listed}) are" if count > 1 else (
            f"1 file of another kind ({listed}) is"
        )  # fmt: skip
        warn(
            f"{key}: {many} not read; convert to TIFF or OME-Zarr (Fiji, bioformats2raw), or "
            "write a glob such as dir/*.tif if they are not meant"
        )


def like_labels(found: list[Found], key: str, warn: Warn) -> None:
    """Tells of images that are named like labels of others."""
    if warn is unheard:
        return
    names = {item.name for item in found}
    parts = [(item, _LIKE_LABELS.fullmatch(item.name)) for item in found]
    pairs = [(item, match[1]) for item, match in parts if match and match[1] in names]
    if pairs:
        item, base = pairs[0]
        warn(
            f"{key}: {len(pairs)} of {len(found)} images are named like the labels of others, such "
            f"as {item.path.name} beside {base}; if they are labels, write a glob that leaves them "
            "out"
        )


def common_ending(found: list[Found]) -> str | None:
    """The end of the names by which some of the files are labels of the others, such as
    ``_masks``; None where there is not just one."""
    names = {item.name for item in found}
    parts = filter(None, map(_LIKE_LABELS.fullmatch, names))
    endings = {match[2] for match in parts if match[1] in names}
    return endings.pop() if len(endings) == 1 else None


def _glob(where: Path, key: str, warn: Warn) -> list[Found]:
    fixed, paths = glob_paths(where)
    tell_unread(paths, key, warn)
    expression = re.compile(_translated(where.relative_to(fixed).as_posix()))
    found = []
    for path in filter(is_image, paths):
        below = path.relative_to(fixed)
        match = expression.fullmatch(below.as_posix())
        wild = tuple(_bare(part) for part in match.groups("")) if match else ()
        found.append(Found(path, (below.parent / stem(path)).as_posix(), wild))
    return found


def glob_paths(where: Path) -> tuple[Path, list[Path]]:
    """The part of a glob before its first wildcard, and the sorted paths that match it."""
    fixed = fixed_part(where)
    return fixed, sorted(set(_expanded(fixed, where.relative_to(fixed).parts)), key=_parts)


def _expanded(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """What matches a glob's parts below a folder."""
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
    """A folder and all below it that are not hidden. Links to folders are followed (glob does so,
    Path.glob does not), but not to one that they are in, which would have no end."""
    place = top.resolve()
    if not top.is_dir() or place in above:
        return
    yield top
    for path in sorted(top.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from _folders(path, (*above, place))


def fixed_part(where: Path) -> Path:
    """A glob's folders before its first wildcard; a folder itself; the folder of a file."""
    for i, part in enumerate(where.parts):
        # A folder that is really called [2024] is no pattern.
        if glob.has_magic(part) and not Path(*where.parts[: i + 1]).exists():
            return Path(*where.parts[:i])
    return where.parent if where.suffix.lower() in SUFFIXES or is_sheet(where.name) else where


def _translated(pattern: str) -> str:
    """A regular expression for a glob, with one group for each wildcard."""
    parts = []
    for piece in _MAGIC.split(pattern):
        if piece == "**/":
            parts.append("(.*/)?")
        elif piece == "*":
            parts.append("([^/]*)")
        elif piece == "?":
            parts.append("([^/])")
        elif _MAGIC.fullmatch(piece):
            parts.append("([" + ("^" + piece[2:-1] if piece[1] == "!" else piece[1:-1]) + "])")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


def _bare(text: str) -> str:
    return stem(Path(text)) if Path(text).suffix.lower() in SUFFIXES else text


def _check_unique(found: Iterable[Found], key: str) -> None:
    seen: dict[str, Path] = {}
    for item in found:
        other = seen.setdefault(spelling(item.name), item.path)
        if other != item.path:
            same = composed(str(other)) == composed(str(item.path))
            hidden = " (accents are stored in two ways, as macOS does)" if same else ""
            raise UserError(
                f"{key}: {other} and {item.path} have one name{hidden}; rename one, narrow the "
                "glob, or list the images in a sheet.csv"
            )


def paired_by_name(images: list[Found], labels: list[Found]) -> tuple[dict[Path, Path], list[Path]]:
    """Labels by image: by name, else (where no name agrees) by what the wildcards stand for.

    Returns:
        label of each image that has one, and the labels that no image has.

    Raises:
        UserError: neither way matches a single image.
    """
    for key in MATCHES:
        table: dict[tuple[str, ...], Path] = {}
        for item in labels:
            table.setdefault(key(item), item.path)
        keys = [key(item) for item in images]
        # A key that stands for two files tells nothing.
        if len(table) < len(labels) or len(set(keys)) < len(keys):
            continue
        pairs = {i.path: table[k] for i, k in zip(images, keys, strict=True) if k in table}
        if pairs:
            used = set(pairs.values())
            return pairs, [item.path for item in labels if item.path not in used]
    raise UserError(
        f"labels: none of {len(labels)} has the name of an image (such as {labels[0].path} and "
        f"{images[0].path}); name each label like its image, write globs whose * agree, or list "
        "the pairs in a sheet.csv"
    )


def safe_id(name: str) -> str:
    """An id that is safe as a folder name and depends on ``name`` alone, whatever other files
    there are: the name itself, or where it had to be changed, with a few digits of its hash."""
    flat = name.replace("/", "-")
    plain = unicodedata.normalize("NFKD", flat).encode("ascii", "ignore").decode()
    clean = _UNSAFE.sub("_", plain).strip("._-")[:LONGEST_ID]
    same = clean == name or (clean == flat and "-" not in name)
    if clean and same and clean.upper() != _TAKEN:
        return clean
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{clean or 'image'}-{digits}"


def relative(path: Path, root: Path) -> str:
    """The path as seen from ``root``, with forward slashes (``..`` where it lies outside)."""
    text, above = str(path), f"{root}{os.sep}"
    if text.startswith(above) and os.sep == "/" and ".." not in text:
        return text[len(above) :]  # as below, but ten times as fast: there may be millions
    return Path(os.path.relpath(path, root)).as_posix()
