"""Finds the masks of another tool, says whether they changed, and matches them with a dataset's
images by name. Light: planning uses it at each start."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unet.data.dataset_warnings import Warn
from unet.data.file_names import Found, composed, glob_paths
from unet.data.mask_pairs import bare_name, find_masks, label_inside
from unet.data.raw_changes import fingerprint
from unet.errors import UserError, how_many
from unet.files import read_json
from unet.io.formats import SUFFIXES, stem
from unet.io.mask_files import MASK_SUFFIXES

if TYPE_CHECKING:
    from unet.data.records import ImageRecord

T = TypeVar("T")

# Kinds of files in the order in which one of them is taken if a folder has several for the same
# images: first if the names say that they are masks (a_cp_masks.tif), then otherwise.
_MARKED = ("tif", "zarr", "png", "npy", "geojson", "roi")
_PLAIN = ("geojson", "roi", "npy", "zarr", "tif", "png")
_KINDS = {".tiff": "tif", ".zip": "roi"}
# What separates the name of an image from what a tool appends to it.
_SEPARATORS = " ._-"


@dataclass(frozen=True)
class FoundMasks:
    """The mask files of a tool, sorted; ``root``: the folder that their names start from."""

    root: Path
    files: tuple[Found, ...]


@dataclass(frozen=True)
class Named:
    """An image of the dataset with the names that its mask may have.

    ``path``: of its file; ``name``: that file's name without suffix, below the dataset's folder.
    """

    id: str
    path: Path
    name: str
    page: int | None = None


def label_of(task: str) -> str:
    """The label of an OME-Zarr image that is compared, if it has several."""
    return "instances" if task == "instances" else "classes"


def find_compared(pattern: str, root: Path, key: str, label: str = "instances") -> FoundMasks:
    """The masks in a folder, of a glob, or a single file (then for all images of a stack).

    Args:
        pattern: absolute, or relative to ``root``.
        key: of the config, for messages.
        label: the one to take of an OME-Zarr image with several labels.

    Raises:
        UserError: no such folder, or it holds no file of a known format.
    """
    where = root / Path(pattern).expanduser()
    if where.is_dir() and where.suffix.lower() == ".zarr":
        # An OME-Zarr image, or a collection of them.
        return FoundMasks(where.parent, tuple(find_masks(str(where), key, label=label)))
    if glob.has_magic(str(where)) and not where.exists():
        folder, paths = glob_paths(where)
    elif where.is_dir():
        folder, paths = where, sorted(where.iterdir())
    elif where.exists():
        folder, paths = where.parent, [where]
    else:
        raise UserError(f"{key}: no folder or file {where}; write a folder or a glob of masks")
    found = [
        Found(
            label_inside(path, label, key),
            (path.relative_to(folder).parent / _bare_file(path)).as_posix(),
        )
        for path in paths
        if path.suffix.lower() in MASK_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        kinds = ", ".join(sorted(MASK_SUFFIXES))
        raise UserError(
            f"{key}: {where} holds no mask ({kinds}); write a folder or a glob of masks"
        )
    return FoundMasks(folder, tuple(found))


def _bare_file(path: Path) -> str:
    return stem(path) if path.suffix.lower() in SUFFIXES else path.stem


def masks_fingerprint(found: FoundMasks, noted: Path) -> str:
    """A hash that represents the content of the masks, from their names, sizes and times, or from
    their content if they were only touched, copied or moved.

    Args:
        noted: the file with what was there at the last comparison; need not exist.
    """
    stored = read_json(noted) if noted.is_file() else None
    seen = None if stored is None else noted.with_name(f".{noted.stem}-seen.json")
    return fingerprint((item.path for item in found.files), found.root, stored, seen)


def match_masks(
    found: FoundMasks, images: Sequence[Named], wanted: Collection[str], key: str, warn: Warn
) -> dict[str, Path]:
    """The mask of each image that has one: by the whole name, else without endings such as
    ``_cp_masks``, else by the beginning of the name.

    Args:
        images: all images of the dataset, so that no image gets the mask of another one.
        wanted: ids of the images that are compared.
        warn: receives a warning about files that are not used, and about unclear names.

    Raises:
        UserError: no wanted image has a mask.
    """
    own = {image.path.resolve() for image in images}
    files = [item for item in found.files if item.path.resolve() not in own]
    kinds: dict[str, list[Found]] = {}
    for item in files:
        kinds.setdefault(_kind(item.path), []).append(item)
    matched = {kind: _matched(items, images) for kind, items in kinds.items()}

    def rank(kind: str) -> tuple[int, bool, int]:
        pairs = {k: v for k, v in matched[kind].pairs.items() if k in wanted}
        marked = bool(pairs) and matched[kind].marked
        order = _MARKED if marked else _PLAIN
        return len(pairs), marked, -order.index(kind)

    best = max(kinds, key=rank) if kinds else ""
    if not best or not rank(best)[0]:
        unclear = [one for kind in matched.values() for one in kind.unclear if one[0] in wanted]
        if unclear:
            raise UserError(f"{key}: no mask can be used: {_unclear(unclear)}")
        raise UserError(_no_match(found, files, images, wanted, key))
    _warn_of_kinds(kinds, best, matched, wanted, warn)
    chosen = matched[best]
    if chosen.unclear:
        warn(_unclear(chosen.unclear))
    if chosen.begun:
        image, path = chosen.begun[0]
        warn(
            f"{how_many(len(chosen.begun), 'mask')} matched by the beginning of the name, such as "
            f"{path.name} with {image}"
        )
    return chosen.pairs


def _unclear(unclear: Sequence[tuple[str, Sequence[str]]]) -> str:
    names = "; ".join(f"{name}: {', '.join(files)}" for name, files in unclear[:3])
    return (
        f"{how_many(len(unclear), 'image')} left out because several masks could be theirs "
        f"({names}); narrow the glob"
    )


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    # A label inside an OME-Zarr image has no suffix.
    return _KINDS.get(suffix, suffix[1:]) if suffix in MASK_SUFFIXES else "zarr"


@dataclass(frozen=True)
class _Matches:
    """``marked``: all names have an ending of masks; ``begun``: matched by the beginning."""

    pairs: dict[str, Path]
    marked: bool
    begun: list[tuple[str, Path]]
    unclear: list[tuple[str, list[str]]]


def _matched(files: Sequence[Found], images: Sequence[Named]) -> _Matches:
    pairs: dict[str, Path] = {}
    used: set[Path] = set()
    unclear: dict[str, list[str]] = {}
    # Images next to masks, such as a.tif with a_cp_masks.tif.
    bare = {_bare(one.name) for one in files if _bare(one.name) != _whole(one.name)}
    files = [one for one in files if _whole(one.name) not in bare]
    stacks = {image.id: image.path for image in images if image.page is not None}
    if len(files) == 1 and len(images) == len(stacks) and len(set(stacks.values())) == 1:
        # One stack of images, one of masks: they need no common name.
        return _Matches(dict.fromkeys(stacks, files[0].path), True, [], [])
    # Both names of an image, with its folder and without; of a stack, only ids tell images apart.
    for of_mask in (_whole, _last, _bare, _bare_last):
        for of_image in (_by_id, _whole_name, _last_name):
            left = _table((of_image(image), image.id) for image in images if image.id not in pairs)
            free = _table(
                (of_mask(item.name), item.path) for item in files if item.path not in used
            )
            for name in sorted(left.keys() & free.keys()):
                ids, paths = left[name], free[name]
                # The mask of a whole stack of images is a stack, too.
                one_stack = len({stacks.get(image, Path(image)) for image in ids}) == 1
                if len(paths) == 1 and one_stack:
                    pairs.update(dict.fromkeys(ids, paths[0]))
                    used.add(paths[0])
                elif len(ids) == 1:
                    unclear[ids[0]] = [path.name for path in paths]
    whole = {item.path for item in files if _whole(item.name) == _bare(item.name)}
    marked = not whole.intersection(pairs.values())
    begun = _by_beginning(files, images, pairs, used, unclear)
    pairs.update(begun)
    listed = [(name, paths) for name, paths in sorted(unclear.items()) if name not in pairs]
    return _Matches(pairs, marked, sorted(begun.items()), listed)


def _by_beginning(
    files: Sequence[Found],
    images: Sequence[Named],
    pairs: Mapping[str, Path],
    used: Collection[Path],
    unclear: dict[str, list[str]],
) -> dict[str, Path]:
    """Masks whose names begin with an image's name: the longest one of all images, so that
    ``a_1_cells`` is not the mask of ``a`` if there is an image ``a_1``."""
    ids = {name: image.id for image in images for name in (image.id, _last_name(image))}
    candidates: dict[str, list[Path]] = {}
    for item in files:
        if item.path in used:
            continue
        name = _last(item.name)
        cuts = [k for k, letter in enumerate(name) if letter in _SEPARATORS]
        owner = next((ids[name[:k]] for k in reversed(cuts) if name[:k] in ids), None)
        if owner is not None and owner not in pairs and owner not in unclear:
            candidates.setdefault(owner, []).append(item.path)
    for image, paths in candidates.items():
        if len(paths) > 1:
            unclear[image] = [path.name for path in paths]
    return {image: paths[0] for image, paths in candidates.items() if len(paths) == 1}


def _table(rows: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    table: dict[str, list[T]] = {}
    for name, value in rows:
        table.setdefault(name, []).append(value)
    return table


def _whole(name: str) -> str:
    return composed(name)


def _last(name: str) -> str:
    return composed(name.rpartition("/")[2])


def _bare(name: str) -> str:
    return composed(bare_name(name))


def _bare_last(name: str) -> str:
    return _last(bare_name(name))


def _by_id(image: Named) -> str:
    return image.id


def _whole_name(image: Named) -> str:
    return _whole(image.name)


def _last_name(image: Named) -> str:
    return _last(image.name)


def _no_match(
    found: FoundMasks,
    files: Sequence[Found],
    images: Sequence[Named],
    wanted: Collection[str],
    key: str,
) -> str:
    if not files:
        return (
            f"{key}: all {how_many(len(found.files), 'file')} in {found.root} are images of the "
            "dataset, not masks; give the folder with the masks"
        )
    image = next((i for i in images if i.id in wanted), images[0]) if images else None
    such = f" (such as {files[0].path.name} and {image.name})" if image else ""
    return (
        f"{key}: none of {how_many(len(files), 'mask')} in {found.root} is named like one of the "
        f"{how_many(len(wanted), 'test image')}{such}; name each mask like its image (endings such "
        "as _mask, _pred, _cp_masks are ignored)"
    )


def _warn_of_kinds(
    kinds: Mapping[str, Sequence[Found]],
    best: str,
    matched: Mapping[str, _Matches],
    wanted: Collection[str],
    warn: Warn,
) -> None:
    """Says which files were not used although they could be masks of the same images."""
    others: Counter[str] = Counter()
    for kind, items in kinds.items():
        if kind != best and any(image in wanted for image in matched[kind].pairs):
            others.update(item.path.suffix for item in items)
    if others:
        listed = ", ".join(f"{number} {suffix}" for suffix, number in sorted(others.items()))
        taken = "".join(sorted({item.path.suffix for item in kinds[best]})[:1])
        warn(
            f"several kinds of files for the same images: {taken} is used, {listed} not; narrow "
            "the glob for another choice"
        )


def names_of(records: Iterable[ImageRecord], root: Path) -> list[Named]:
    """The names of the images in the manifest; ``root``: folder of its paths."""
    return [
        Named(
            record.id,
            root / record.image,
            (Path(record.image).parent / _file_name(record.image)).as_posix(),
            record.page,
        )
        for record in records
        if record.status == "ok"
    ]


def _file_name(path: str) -> str:
    """A file's name without suffix; ``a`` for ``a_????.tif``, which stands for its channels."""
    return stem(Path(path)).removesuffix("_????")
