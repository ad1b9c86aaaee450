"""Reading and writing of CSV tables.

Always UTF-8, with a line feed after each row, written atomically. Text cells that a spreadsheet
would run as a formula get a leading apostrophe (OWASP, "CSV injection"), which is removed on
reading. pandas is imported only where it is used, because planning imports this module.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from unet.errors import UserError, one_line
from unet.files import replacing

if TYPE_CHECKING:
    import pandas as pd

# The start of a formula, unless the cell is a number. Leading apostrophes are included, so that
# guarding can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")

# What a formula or a guarded text may start with.
_SUSPECT = frozenset("'=+-@\t\r")

# Rows of a long table that are in memory at once.
CHUNK = 50_000

Append = Callable[[Iterable[Sequence[Any]]], None]


def guarded(text: str) -> str:
    """The text as written to a cell, so that no spreadsheet runs it as a formula."""
    formula = text[:1] in _SUSPECT and _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def unguarded(cell: str) -> str:
    """Undoes :func:`guarded`."""
    return cell[1:] if _GUARDED.match(cell) else cell


class _Lines:
    """Replaces the line end of each row of a CSV writer by a single line feed."""

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle

    def write(self, row: str) -> int:
        return self._handle.write(row.removesuffix("\r\n") + "\n")


def csv_writer(handle: TextIO) -> Any:
    """A CSV writer whose cells may contain any character. Python's own writer quotes a carriage
    return in a cell only if rows end with one; otherwise no reader accepts the file.

    Args:
        handle: opened with ``newline=""``.
    """
    return csv.writer(_Lines(handle), lineterminator="\r\n")


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text by column, "" for empty or missing cells; without pandas."""
    rows = csv.DictReader(StringIO(text, newline=""), restkey="", restval="")
    return [{name: unguarded(cell) for name, cell in row.items() if name} for row in rows]


@contextmanager
def table_writer(
    path: Path, columns: Sequence[str], digits: int = 8, *, comment: str = ""
) -> Iterator[Append]:
    """Writes a table piece by piece: yields a function that appends rows.

    Args:
        columns: the header.
        digits: significant digits of floats; NaN and None become empty cells.
        comment: a line above the header.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return guarded(value)
        if isinstance(value, int):  # the test of abstract types is slow
            return value
        # Abstract types, because NumPy's numbers are not Python's.
        if isinstance(value, Real) and not isinstance(value, Integral):
            return "" if value != value else f"{value:.{digits}g}"
        return value

    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        handle.write(f"{comment}\n" if comment else "")
        writer = csv_writer(handle)
        writer.writerow(columns)

        def append(rows: Iterable[Sequence[Any]]) -> None:
            # Most cells are text that needs no guard, so they are tested here, without a call.
            writer.writerows(
                [v if type(v) is str and v[:1] not in _SUSPECT else cell(v) for v in row]
                for row in rows
            )

        yield append


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    digits: int = 8,
    *,
    comment: str = "",
) -> None:
    """Writes a complete table; arguments as in :func:`table_writer`."""
    with table_writer(path, columns, digits, comment=comment) as append:
        append(rows)


def read_table(
    path: Path,
    stage: str,
    columns: Collection[str] = (),
    numbers: Collection[str] = (),
    delimiter: str = ",",
) -> pd.DataFrame:
    """Reads a table: cells are text as written, "" if empty.

    Args:
        stage: the stage that writes the table, for messages.
        columns: required columns.
        numbers: columns to read as float64; empty cells become NaN.

    Raises:
        UserError: the table cannot be read, or a column is missing.
    """
    import pandas as pd

    with _readable(path, stage):
        frame = pd.read_csv(
            path,
            sep=delimiter,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8",
        )
        for name in frame.columns:
            if name in numbers:
                frame[name] = [float(cell or "nan") for cell in frame[name]]
            else:
                frame[name] = frame[name].map(unguarded)
    _require(frame, columns, path, stage)
    return frame


def table_chunks(
    path: Path, stage: str, columns: Collection[str], numbers: Collection[str], rows: int = CHUNK
) -> Iterator[pd.DataFrame]:
    """Reads these columns of a long table piece by piece; at least one piece, maybe empty.

    Other arguments, cells and errors as in :func:`read_table`.
    """
    import pandas as pd

    with (
        _readable(path, stage),
        pd.read_csv(
            path,
            usecols=lambda name: name in columns,
            dtype={name: float if name in numbers else str for name in columns},
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
            encoding="utf-8",
            chunksize=rows,
        ) as pieces,
    ):
        for frame in pieces:
            _require(frame, columns, path, stage)
            for name in set(columns) - set(numbers):
                frame[name] = frame[name].map(unguarded)
            yield frame


@contextmanager
def _readable(path: Path, stage: str) -> Iterator[None]:
    """Turns the errors of reading a table into messages."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); run the {stage} stage first") from None
    except ValueError as error:  # includes pandas' errors and decoding errors
        reason = one_line(error, 160)
        raise UserError(f"{path}: damaged ({reason}); remove it and run again") from None


def _require(frame: pd.DataFrame, columns: Collection[str], path: Path, stage: str) -> None:
    if missing := [name for name in columns if name not in frame.columns]:
        raise UserError(f"{path}: has no column {', '.join(missing)}; run the {stage} stage again")
