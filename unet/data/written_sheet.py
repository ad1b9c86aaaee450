"""Writes the sheet of a public dataset whose files no layout matches."""

from __future__ import annotations

import csv
import logging
import posixpath
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from unet.config.public_datasets import WrittenSheet
from unet.errors import UserError, how_many

log = logging.getLogger(__name__)

SHEET = "sheet.csv"


def write_sheet(folder: Path, sheet: WrittenSheet) -> None:
    """Writes ``sheet.csv`` into a dataset's folder: image, label, id, and part and group if the set
    has them.

    Raises:
        UserError: no image with a label is there.
    """
    _gather_objects(folder, sheet)
    rows, missing = [], 0
    listed = _listed(folder, sheet)
    for path in _files(folder):
        found = re.fullmatch(sheet.image, path)
        if found is None:
            continue
        label = posixpath.normpath(
            posixpath.join(posixpath.dirname(path), found.expand(sheet.label))
        )
        part = found.expand(sheet.part) if sheet.part else listed.get(PurePosixPath(path).stem, "")
        if not (folder / label).exists() or (sheet.lists and not part):
            missing += 1
            continue
        row = {"image": path, "label": label, "id": PurePosixPath(path).stem}
        row |= {"part": sheet.parts.get(part, part)} if part else {}
        row |= {"group": found.expand(sheet.group)} if sheet.group else {}
        rows.append(row)
    if not rows:
        raise UserError(
            f"none of {how_many(len(_files(folder)), 'file')} is an image with a label, by the "
            f"names that are known of this dataset ({sheet.image}): it has changed"
        )
    if missing:
        log.info("%s without a label or a part: left out of %s", how_many(missing, "image"), SHEET)
    same = Counter(row["id"] for row in rows)
    for row in rows:
        if same[row["id"]] > 1:
            row["id"] = "-".join(PurePosixPath(row["image"]).with_suffix("").parts)
    with (folder / SHEET).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _files(folder: Path) -> list[str]:
    """All files, from the folder, with ``/``; without those that systems hide."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    hidden = ("__MACOSX", ".")
    return sorted(p.as_posix() for p in found if not any(x.startswith(hidden) for x in p.parts))


def _gather_objects(folder: Path, sheet: WrittenSheet) -> None:
    """Moves files with one object each into a folder per image."""
    for path in _files(folder) if sheet.objects else ():
        if found := re.fullmatch(sheet.objects, path):
            target = folder / "objects" / found[1]
            target.mkdir(parents=True, exist_ok=True)
            (folder / path).replace(target / PurePosixPath(path).name)


def _listed(folder: Path, sheet: WrittenSheet) -> dict[str, str]:
    """Name of an image, without suffix -> its part."""
    return {
        PurePosixPath(line.strip()).stem: part
        for part, pattern in sheet.lists.items()
        for file in folder.glob(pattern)
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }
