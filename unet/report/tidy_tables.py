"""The tables of a run as pandas data frames, with numbers as numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unet.data.records import WELL_KEYS
from unet.errors import UserError
from unet.evaluation.metrics.rows import METRIC_COLUMNS
from unet.report.score_tables import REPORT_COLUMNS
from unet.tables import read_table

TEXTS = (
    "dataset", "model", "fold", "image", "group", "class", "metric", "best", "clear", *WELL_KEYS,
)  # fmt: skip
COUNTS = ("n", "units", "far")


def read_scores(path: Path) -> pd.DataFrame:
    """The rows of a ``report.csv`` or ``metrics.csv``; empty cells of numbers are NaN.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    each = path.name == "metrics.csv"
    columns, stage = (METRIC_COLUMNS, "evaluate") if each else (REPORT_COLUMNS, "report")
    numbers = [name for name in columns if name not in TEXTS]
    frame = read_table(path, stage, columns, numbers)[list(columns)]
    return frame.astype({name: "int64" for name in COUNTS if name in columns})


def score_files(path: Path, *, each_image: bool) -> list[Path]:
    """The files with the scores of a run, of a dataset or of a model.

    Args:
        path: the file itself, or the folder of a run, a dataset or a model.
        each_image: whether the scores of each image are wanted, not the means.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        if path.name != ("metrics.csv" if each_image else path.name):
            raise UserError(f"{path}: has no scores of each image; give a metrics.csv or a folder")
        return [path]
    patterns = (
        ("metrics.csv", "*/metrics.csv", "*/*/metrics.csv") if each_image else ("report.csv",)
    )
    for pattern in patterns:
        if found := sorted(path.glob(pattern)):
            return found
    wanted = "metrics.csv" if each_image else "report.csv"
    raise UserError(
        f"{path}: no {wanted} here; give the results folder of a run, the folder of a dataset in "
        "it, or the file"
    )


def read_objects(path: Path) -> pd.DataFrame:
    """The rows of an ``objects.csv``: columns as in docs/pipeline.md; empty numbers are NaN.

    Raises:
        UserError: it cannot be read.
    """
    frame = read_table(path, "stitch", ("image", "label", "class"))
    for name in frame.columns:
        if name not in TEXTS:
            frame[name] = [float(cell or "nan") for cell in frame[name]]
            if _is_whole(name) and not frame[name].isna().any():
                frame[name] = frame[name].astype("int64")
    return frame


def _is_whole(name: str) -> bool:
    return name in ("label", "area_px", "volume_px", "touches_border") or name.startswith("bbox_")
