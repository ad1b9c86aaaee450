"""The tables that people open: written and read as CSV, in one place.

UTF-8 whatever the locale, a row per line end, whole or not at all. A cell of text that a
spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV injection"), which
reading takes away again. pandas is imported where it is used: planning imports this module's users.
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

# What begins a formula, unless it is a number; apostrophes in front of it are counted, so that
# guarding can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")

Append = Callable[[Iterable[Sequence[Any]]], None]


def guarded(text: str) -> str:
    """The text as it may stand in a cell: no spreadsheet takes it for a formula."""
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def unguarded(cell: str) -> str:
    """The text that :func:`guarded` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell


class _Lines:
    """Ends each row that a CSV writer writes with a line feed alone."""

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle

    def write(self, row: str) -> int:
        return self._handle.write(row.removesuffix("\r\n") + "\n")


def csv_writer(handle: TextIO) -> Any:
    """A writer of CSV whose cells may hold any character: Python's own quotes a carriage return
    only where the rows end with one, and then no reader takes the file.

    Args:
        handle: opened with ``newline=""``.
    """
    return csv.writer(_Lines(handle), lineterminator="\r\n")


def csv_rows(text: str) -> list[dict[str, str]]:
    """The rows of a table's text, by column, "" where empty or missing; without pandas."""
    rows = csv.DictReader(StringIO(text, newline=""), restkey="", restval="")
    return [{name: unguarded(cell) for name, cell in row.items() if name} for row in rows]


@contextmanager
def table_writer(
    path: Path, columns: Sequence[str], digits: int = 8, *, comment: str = ""
) -> Iterator[Append]:
    """Writes a table bit by bit: yields a function that appends rows.

    Args:
        columns: the header.
        comment: a line before it.
        digits: significant digits of floats; NaN and None are empty cells, integers are whole.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return guarded(value)
        # NumPy's are none of Python's.
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
            writer.writerows(map(cell, row) for row in rows)

        yield append


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    digits: int = 8,
    *,
    comment: str = "",
) -> None:
    """Writes a whole table, see :func:`table_writer`."""
    with table_writer(path, columns, digits, comment=comment) as append:
        append(rows)


def read_table(
    path: Path,
    stage: str,
    columns: Collection[str] = (),
    numbers: Collection[str] = (),
    delimiter: str = ",",
) -> pd.DataFrame:
    """Reads a table: cells are text as it was written, "" where empty.

    Args:
        stage: that writes it, for messages.
        columns: that must be there.
        numbers: columns to read as float64, NaN where empty.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    import pandas as pd

    try:
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
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); run the {stage} stage first") from None
    except ValueError as error:  # pandas' errors and those of decoding are of this kind
        reason = one_line(error, 160)
        raise UserError(f"{path}: damaged ({reason}); remove it and run again") from None
    if missing := [name for name in columns if name not in frame.columns]:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; run the {stage} stage again to remake it"
        )
    return frame
