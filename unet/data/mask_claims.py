"""Which image a tool's mask belongs to, by their names. Light: planning uses it at each start.

Each mask names at most one image: by as many of its folders as the image has too, then by its own
name. So the mask of an image is never given to another one that is called alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.data.file_names import Found, composed, safe_id
from unet.data.mask_pairs import bare_name

# What separates the name of an image from what a tool appends to it.
_SEPARATORS = " ._-"
# How a mask's name stands for its image, in order of preference.
_WHOLE, _BARE, _BEGUN = range(3)


@dataclass(frozen=True)
class Named:
    """An image of the dataset with the names that its mask may have.

    ``path``: of its file; ``name``: that file's name without suffix, below the dataset's folder.
    """

    id: str
    path: Path
    name: str
    page: int | None = None


@dataclass(frozen=True)
class Matches:
    """The masks of images, of one kind of files.

    Attributes:
        pairs: image id -> mask.
        marked: whether all names have an ending of masks.
        begun: pairs that were matched by the beginning of the name.
        unclear: image id -> names of the masks that could all be its own.
        shared: masks whose name is that of several images.
        beside: image id -> a file that was taken for the image, and the mask beside it.
        alone: files whose name is that of no image of the dataset.
    """

    pairs: dict[str, Path]
    marked: bool
    begun: list[tuple[str, Path]]
    unclear: list[tuple[str, list[str]]]
    shared: list[Path]
    beside: list[tuple[str, Path, Path]]
    alone: list[Path]


@dataclass(frozen=True)
class _Claim:
    """A mask of images (several: pages of one stack). The claim with the lowest rank counts."""

    item: Found
    way: int
    rank: tuple[int, int, bool]


class _Owners:
    """The images by their names: ids, and the ends of their paths (``img``, ``A/img``, ...)."""

    def __init__(self, images: Sequence[Named]) -> None:
        self._ids = {image.id for image in images}
        self._files: dict[str, dict[Path, list[str]]] = {}
        for image in images:
            for _, name in _ends(image.name):
                self._files.setdefault(name, {}).setdefault(image.path, []).append(image.id)

    def of(self, name: str) -> tuple[list[str], bool] | None:
        """The ids of the images with this name, and whether it is an id; no ids if the name is that
        of several files; None if it is of none."""
        if name in self._ids:
            return [name], True
        if files := self._files.get(name):
            # A whole stack of images has one file.
            return next(iter(files.values())) if len(files) == 1 else [], False
        # The id that was made of a file in a subfolder.
        safe = safe_id(name) if "/" in name else name
        return ([safe], True) if safe in self._ids else None


def match_names(files: Sequence[Found], images: Sequence[Named]) -> Matches:
    """Gives the masks to the images: by the whole name, else without endings such as ``_cp_masks``,
    else by the beginning of the name.

    Args:
        images: all images of the dataset, also those that cannot be used.
    """
    stacks = [image.id for image in images if image.page is not None]
    if len(files) == 1 and stacks and len({image.path for image in images}) == 1:
        # One stack of images, one of masks: they need no common name.
        return Matches(dict.fromkeys(stacks, files[0].path), True, [], [], [], [], [])
    owners, shared, alone = _Owners(images), [], []
    claims: dict[str, list[_Claim]] = {}
    for item in files:
        ids, claim = _claim(item, owners)
        if claim is None:
            alone.append(item.path)
            continue
        if not ids:
            shared.append(item.path)
        for image in ids:
            claims.setdefault(image, []).append(claim)
    found = Matches({}, True, [], [], shared, [], alone)
    for image, own in sorted(claims.items()):
        _settle(image, own, found)
    plain = {item.path for item in files if composed(item.name) == composed(bare_name(item.name))}
    return Matches(**{**vars(found), "marked": not plain.intersection(found.pairs.values())})


def _settle(image: str, claims: Sequence[_Claim], found: Matches) -> None:
    """Adds the image's mask, or the masks that could be its own."""
    # The image next to its mask, such as a.tif with a_cp_masks.tif.
    masks = {bare_name(c.item.name): c.item.path for c in claims if c.way == _BARE}
    beside = [c for c in claims if c.way == _WHOLE and c.item.name in masks]
    found.beside.extend((image, c.item.path, masks[c.item.name]) for c in beside)
    left = [c for c in claims if c not in beside]
    best = min(claim.rank for claim in left)
    paths = [claim.item.path for claim in left if claim.rank == best]
    if len(paths) > 1:
        found.unclear.append((image, [path.name for path in paths]))
        return
    found.pairs[image] = paths[0]
    if best[0] == _BEGUN:
        found.begun.append((image, paths[0]))


def _claim(item: Found, owners: _Owners) -> tuple[list[str], _Claim | None]:
    """The images that a mask names, and how; no images but a claim: several files have the name."""
    # More folders in common count more than a name that fits better.
    for depth, end in reversed(list(_ends(item.name))):
        for way, name in _readings(end):
            if (found := owners.of(name)) is not None:
                ids, is_id = found
                return ids, _Claim(item, way, (way, -depth, not is_id))
    return [], None


def _readings(name: str) -> Iterator[tuple[int, str]]:
    """What a mask's name can say about its image's, in order of preference."""
    yield _WHOLE, name
    if (bare := composed(bare_name(name))) != name:
        yield _BARE, bare
    start = name.rfind("/") + 1
    # The longest beginning first, so that a_1_cells is not the mask of a if there is an image a_1.
    for cut in range(len(name) - 1, start, -1):
        if name[cut] in _SEPARATORS:
            yield _BEGUN, name[:cut]


def _ends(name: str) -> Iterator[tuple[int, str]]:
    """The ends of a path with their number of parts: ``b``, ``a/b``."""
    parts = composed(name).split("/")
    for depth in range(1, len(parts) + 1):
        yield depth, "/".join(parts[-depth:])
