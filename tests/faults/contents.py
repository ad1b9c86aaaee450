"""What a run of the fault tests wrote: its final tables, and whether two runs differ."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import tifffile

FOLD = "d/m/fold-0"
# The final tables, and their inputs.
TABLES = (
    "d/manifest.csv", "d/splits.csv", f"{FOLD}/objects.csv", f"{FOLD}/segmentation.json",
    "d/m/metrics.csv", "d/m/details/matches.csv", "d/m/details/confusion.csv",
    "d/m/details/thresholds.csv", "d/compared/t/metrics.csv", "d/compared/t/masks.json",
    "d/m/audit.csv", "d/report.csv", "report.csv",
)  # fmt: skip
# Only where models of other datasets are applied.
QUALITY = ("e/m@d/quality.csv",)
TIMES = {"images_per_s", "data_share", "seconds"}


def write_masks(labels: Path, folder: Path) -> None:
    """Masks as another tool could have written them: the labels, one pixel to the right."""
    folder.mkdir()
    for path in sorted(labels.glob("*.tif")):
        moved = np.roll(tifffile.imread(path), 1, axis=1)
        tifffile.imwrite(folder / f"{path.stem}_cp_masks.tif", moved)


def size_of(folder: Path) -> int:
    """Bytes of all files, rounded up to pages like a tmpfs does."""
    files = [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in files)


def content(path: Path) -> bytes:
    """A file's content without timing columns, and without the folder of compared masks: each run
    may reach the same files by another path."""
    if path.name == "masks.json":
        noted = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({k: v for k, v in noted.items() if k != "root"}).encode()
    if path.name != "history.csv":
        return path.read_bytes()
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    out = io.StringIO()
    for row in rows:
        out.write(repr({k: v for k, v in row.items() if k not in TIMES}) + "\n")
    return out.getvalue().encode()


def tables(output: Path) -> dict[str, bytes]:
    """The final tables, masks and the history (without its timing columns) by name."""
    names = [*TABLES, f"{FOLD}/history.csv"]
    names += [name for name in QUALITY if (output / name).exists()]
    names += sorted(str(p.relative_to(output)) for p in (output / FOLD / "masks").rglob("*.tif"))
    found = {name: content(output / name) for name in names}
    assert len(names) > len(TABLES) + 1, "no masks"
    return found


def different(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """The names of files that differ."""
    names = found.keys() | wanted.keys()
    return sorted(name for name in names if found.get(name) != wanted.get(name))
