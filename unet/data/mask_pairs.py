"""Finds masks of any tool in a folder, and pairs predicted ones with true ones by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unet.data.dataset_warnings import Warn, ignore_warning
from unet.data.file_names import MATCHES, Found, common_ending, find, safe_id
from unet.errors import UserError, how_many
from unet.io.formats import format_of
from unet.io.zarr_metadata import images_inside, is_zarr

# Endings of names that say what a file is, not which image it belongs to.
_ENDING = re.compile(
    r"(.+?)[ ._-](?:cp_masks?|masks?|label_?(?:map|image)s?|labels?|labelled|seg|segmentations?"
    r"|gt|ground_?truth|truth|instances|objects|rois?|stardist|pred|preds|predicted|predictions?"
    r"|output|result)",
    re.IGNORECASE,
)
# Marks a result of `unet predict`, whose masks are in a folder of their own.
_PREDICTED = ("predict.json", "masks")


@dataclass(frozen=True)
class MaskPair:
    """A true mask with its predicted one.

    Attributes:
        image: name of both, without endings such as ``_mask``.
        truth, predicted: files; ``predicted`` is None if there is none.
    """

    image: str
    truth: Path
    predicted: Path | None


@dataclass(frozen=True)
class MaskPairs:
    """What became of the files of two folders.

    Attributes:
        pairs: in the order of the true masks, also those without a prediction.
        extra: predicted masks without a true one.
    """

    pairs: tuple[MaskPair, ...]
    extra: tuple[Path, ...]


def find_masks(
    pattern: str, key: str, warn: Warn = ignore_warning, label: str = "instances"
) -> list[Found]:
    """The masks in a folder, of a glob, or in a result of ``unet predict``.

    If a folder holds images, too, and the masks have an ending (``a.tif`` and ``a_cp_masks.tif``),
    only the masks are taken.

    Args:
        key: the argument, for messages.
        warn: receives a warning about files that are not taken.
        label: of the labels of an OME-Zarr image, the one to take if there are several.

    Raises:
        UserError: there is no mask that can be read.
    """
    where = Path(pattern).expanduser()
    if where.is_dir() and all((where / name).exists() for name in _PREDICTED):
        where = where / _PREDICTED[1]
    _refuse_pickles(where, key)
    found = find(str(where), Path.cwd(), key, warn, labels=True)
    if where.suffix.lower() == ".zarr" and (parts := images_inside(Path.cwd() / where)):
        # In a collection, the images' own names are those of the other masks.
        names = {part.path: part.name for part in parts}
        found = [replace(item, name=names.get(item.path, item.name)) for item in found]
    found = [replace(item, path=label_inside(item.path, label, key)) for item in found]
    ending = common_ending(found)
    if ending is None:
        return found
    masks = [item for item in found if item.name.endswith(ending)]
    warn(
        f"{key}: {len(masks)} of {len(found)} files end in {ending} and lie next to files of the "
        f"same name without it; only these {len(masks)} are taken as masks"
    )
    return masks


def label_inside(path: Path, label: str, key: str) -> Path:
    """The label of an OME-Zarr image that has labels, otherwise the path itself."""
    folder = path / "labels"
    if not folder.is_dir() or not is_zarr(path):
        return path
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and is_zarr(p))
    if len(names) > 1 and label not in names:
        raise UserError(
            f"{key}: {path} holds the labels {', '.join(names)}; give one of them, such as "
            f"{folder / names[0]}"
        )
    return folder / (label if label in names else names[0]) if names else path


def is_file(pattern: str) -> bool:
    """Whether the pattern is one existing file (or OME-Zarr image)."""
    where = Path(pattern).expanduser()
    return where.is_file() or (where.is_dir() and where.suffix.lower() == ".zarr")


def _refuse_pickles(where: Path, key: str) -> None:
    """Refuses Cellpose's own files: reading one can run code."""
    files = [where] if where.suffix == ".npy" else []
    if where.is_dir() and where.suffix.lower() != ".zarr":
        names = sorted(where.iterdir())
        if not any(format_of(path) for path in names):
            files = [path for path in names if path.name.endswith("_seg.npy")]
    if files:
        raise UserError(
            f"{key}: {files[0]}: a .npy file of Cellpose can run code when it is read, so it is "
            "not; save the masks as TIFF or PNG (cellpose --save_tif, or File > Save masks) and "
            "give these"
        )


def pair_masks(
    truth: list[Found],
    predicted: list[Found],
    key: str,
    *,
    one_file: bool = False,
    warn: Warn = ignore_warning,
) -> MaskPairs:
    """Pairs masks by name: by the whole name, else by the id that ``unet predict`` made of it, else
    without endings such as ``_mask`` or ``_pred``. If no mask has a partner by these, the texts of
    the ``*`` of two globs count, and then the names without their folders.

    Args:
        key: the argument, for messages.
        one_file: whether both sides are a file that the user named, which need no common name.
        warn: receives a warning about names that stand for several masks, which stay alone, and
            about names paired without their folders.

    Raises:
        UserError: no predicted mask is named like a true one.
    """
    if one_file and len(truth) == len(predicted) == 1:
        return MaskPairs(
            (MaskPair(bare_name(truth[0].name), truth[0].path, predicted[0].path),), ()
        )
    pairs, unclear = _paired(truth, predicted, key, warn)
    if not pairs:
        raise UserError(
            f"{key}: none of the {len(predicted)} predicted masks is named like one of the "
            f"{len(truth)} true ones (such as {predicted[0].path} and {truth[0].path}); name them "
            "alike (endings such as _mask, _pred, _cp_masks are ignored), or write two globs whose "
            f"* match the same text{f'; {unclear}' if unclear else ''}"
        )
    if unclear:
        warn(f"{key}: {unclear}")
    names = _image_names(truth)
    used = set(pairs.values())
    return MaskPairs(
        tuple(MaskPair(names[item.path], item.path, pairs.get(item.path)) for item in truth),
        tuple(item.path for item in predicted if item.path not in used),
    )


def pair_images(
    pairs: MaskPairs, images: list[Found], warn: Warn = ignore_warning
) -> dict[str, Path]:
    """The image of each pair that has one, by the same rules."""
    named = [Found(pair.truth, pair.image) for pair in pairs.pairs]
    found, unclear = _paired(named, images, "--images", warn)
    if unclear:
        warn(f"--images: {unclear}")
    return {pair.image: found[pair.truth] for pair in pairs.pairs if pair.truth in found}


def bare_name(name: str) -> str:
    """A name without endings such as ``_mask``, in its last part."""
    folder, slash, last = name.rpartition("/")
    while match := _ENDING.fullmatch(last):
        last = match[1]
    return f"{folder}{slash}{last}"


def _same(name: str) -> str:
    return name


def _safe_bare(name: str) -> str:
    return safe_id(bare_name(name))


# For true and predicted masks, the names that must be equal; in order of preference.
_WAYS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_same, _same),
    (safe_id, _same),
    (bare_name, bare_name),
    (_safe_bare, bare_name),
)


# By what two masks are the same one: the name with its folder, and, only if no mask has a partner
# by that, the wildcards' texts, then the name alone. Both after a partner was found would give a
# mask without a partner that of another folder.
_WHOLE, _ALONE, _WILD = MATCHES
_BY: tuple[Callable[[Found], tuple[str, ...]], ...] = (_WHOLE, _WILD, _ALONE)


def _paired(
    truth: list[Found], others: list[Found], key: str, warn: Warn
) -> tuple[dict[Path, Path], str]:
    """The partner of each item that has one, and a line about names that stand for several."""
    pairs: dict[Path, Path] = {}
    unclear: dict[str, list[Path]] = {}
    for by in _BY:
        for name_truth, name_other in _WAYS:
            used = set(pairs.values())
            left = _keyed([item for item in truth if item.path not in pairs], name_truth, by)
            free = _keyed([item for item in others if item.path not in used], name_other, by)
            for same in [name for name in left if name in free]:
                if len(left[same]) == len(free[same]) == 1:
                    pairs[left[same][0]] = free[same][0]
                else:
                    unclear["/".join(same)] = left[same] + free[same]
        if pairs:
            if by is _ALONE:
                _warn_of_folders(truth, others, pairs, key, warn)
            break
    used = set(pairs) | set(pairs.values())
    return pairs, _listed({name: paths for name, paths in unclear.items() if set(paths) - used})


def _keyed(
    found: list[Found], name: Callable[[str], str], by: Callable[[Found], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Path]]:
    """Key -> the files that have it."""
    table: dict[tuple[str, ...], list[Path]] = {}
    for item in found:
        table.setdefault(by(replace(item, name=name(item.name))), []).append(item.path)
    return table


def _listed(unclear: dict[str, list[Path]], most: int = 3) -> str:
    if not unclear:
        return ""
    shown = "; ".join(
        f"{name}: {', '.join(path.name for path in paths)}"
        for name, paths in sorted(unclear.items())[:most]
    )
    more = "; ..." if len(unclear) > most else ""
    return (
        f"{how_many(len(unclear), 'name')} could stand for several files ({shown}{more}), so these "
        "are not paired; give each file a name of its own"
    )


def _warn_of_folders(
    truth: list[Found], others: list[Found], pairs: dict[Path, Path], key: str, warn: Warn
) -> None:
    """Says if files of folders with different names were paired."""
    folders = {item.path: item.name.rpartition("/")[0] for item in (*truth, *others)}
    apart = [(a, b) for a, b in pairs.items() if folders[a] and folders[b]]
    if apart:
        warn(
            f"{key}: no names are alike with their folders, so {how_many(len(apart), 'file')} are "
            f"paired without, such as {apart[0][0]} with {apart[0][1]}; look whether these belong "
            "together"
        )


def _image_names(truth: list[Found]) -> dict[Path, str]:
    """A name for each true mask, without endings if the names stay different."""
    bare = [bare_name(item.name) for item in truth]
    names = bare if len(set(bare)) == len(bare) else [item.name for item in truth]
    return {item.path: name for item, name in zip(truth, names, strict=True)}
