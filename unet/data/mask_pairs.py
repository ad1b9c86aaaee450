"""Finds masks of any tool in a folder, and pairs predicted ones with true ones by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unet.data.dataset_warnings import Warn, ignore_warning
from unet.data.file_names import Found, common_ending, find, paired_by_name, safe_id
from unet.errors import UserError
from unet.io.formats import SUFFIXES
from unet.io.zarr_metadata import images_inside, is_zarr

# Endings of names that say what a file is, not which image it belongs to.
_ENDING = re.compile(
    r"(.+?)[ ._-](?:cp_masks?|masks?|label_?(?:map|image)s?|labels?|labelled|seg|segmentations?"
    r"|gt|ground_?truth|truth|instances|objects|pred|preds|predicted|predictions?|output|result)",
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
    found = find(str(where), Path.cwd(), key, warn)
    if where.suffix.lower() == ".zarr" and (parts := images_inside(Path.cwd() / where)):
        # In a collection, the images' own names are those of the other masks.
        names = {part.path: part.name for part in parts}
        found = [replace(item, name=names.get(item.path, item.name)) for item in found]
    found = [replace(item, path=_label_inside(item.path, label, key)) for item in found]
    ending = common_ending(found)
    if ending is None:
        return found
    masks = [item for item in found if item.name.endswith(ending)]
    warn(
        f"{key}: {len(masks)} of {len(found)} files end in {ending} and lie next to files of the "
        f"same name without it; only these {len(masks)} are taken as masks"
    )
    return masks


def _label_inside(path: Path, label: str, key: str) -> Path:
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
        if not any(path.suffix.lower() in SUFFIXES for path in names):
            files = [path for path in names if path.name.endswith("_seg.npy")]
    if files:
        raise UserError(
            f"{key}: {files[0]}: a .npy file of Cellpose can run code when it is read, so it is "
            "not; save the masks as TIFF or PNG (cellpose --save_tif, or File > Save masks) and "
            "give these"
        )


def pair_masks(
    truth: list[Found], predicted: list[Found], key: str, *, one_file: bool = False
) -> MaskPairs:
    """Pairs masks by name: by the whole name, else by the id that ``unet predict`` made of it, else
    without endings such as ``_mask`` or ``_pred``; for two globs also by the texts of their ``*``.

    Args:
        key: the argument, for messages.
        one_file: whether both sides are a file that the user named, which need no common name.

    Raises:
        UserError: no predicted mask is named like a true one.
    """
    pairs: dict[Path, Path] = {}
    if one_file and len(truth) == len(predicted) == 1:
        pairs = {truth[0].path: predicted[0].path}
    for name_truth, name_predicted in _WAYS:
        left = [item for item in truth if item.path not in pairs]
        used = set(pairs.values())
        free = [item for item in predicted if item.path not in used]
        pairs |= _paired(_renamed(left, name_truth), _renamed(free, name_predicted))
    if not pairs:
        raise UserError(
            f"{key}: none of the {len(predicted)} predicted masks is named like one of the "
            f"{len(truth)} true ones (such as {predicted[0].path} and {truth[0].path}); name them "
            "alike (endings such as _mask, _pred, _cp_masks are ignored), or write two globs whose "
            "* match the same text"
        )
    names = _image_names(truth)
    used = set(pairs.values())
    return MaskPairs(
        tuple(MaskPair(names[item.path], item.path, pairs.get(item.path)) for item in truth),
        tuple(item.path for item in predicted if item.path not in used),
    )


def pair_images(pairs: MaskPairs, images: list[Found]) -> dict[str, Path]:
    """The image of each pair that has one, by the same rules."""
    named = [Found(pair.truth, pair.image) for pair in pairs.pairs]
    found: dict[Path, Path] = {}
    for name_truth, name_image in _WAYS:
        left = [item for item in named if item.path not in found]
        found |= _paired(_renamed(left, name_truth), _renamed(images, name_image))
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


def _renamed(found: list[Found], name: Callable[[str], str]) -> list[Found]:
    return [replace(item, name=name(item.name)) for item in found]


def _paired(truth: list[Found], predicted: list[Found]) -> dict[Path, Path]:
    if not truth or not predicted:
        return {}
    try:
        return paired_by_name(truth, predicted)[0]
    except UserError:
        return {}


def _image_names(truth: list[Found]) -> dict[Path, str]:
    """A name for each true mask, without endings if the names stay different."""
    bare = [bare_name(item.name) for item in truth]
    names = bare if len(set(bare)) == len(bare) else [item.name for item in truth]
    return {item.path: name for item, name in zip(truth, names, strict=True)}
