"""The tables that people open: written and read as CSV by pandas, in one place.

UTF-8 whatever the locale, a row per line end, whole or not at all. A cell of text that a
spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV injection"), which
reading takes away again. pandas is imported where it is used: planning imports this module's users.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.errors import UserError
from unet.files import replacing

if TYPE_CHECKING:
    import pandas as pd

# What begins a formula, unless it is a number; apostrophes in front of it are counted, so that
# guarding can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
# Rows that are held at once while a table is written.
_ROWS = 4096

Append = Callable[[Iterable[Sequence[Any]]], None]


def guarded(text: str) -> str:
    """The text as it may stand in a cell: no spreadsheet takes it for a formula."""
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def unguarded(cell: str) -> str:
    """The text that :func:`guarded` was given."""
    return cell[1:] if _GUARDED.match(cell) else cell


@contextmanager
def writing(path: Path, columns: Sequence[str], digits: int = 8) -> Iterator[Append]:
    """Writes a table bit by bit: yields a function that appends rows.

    Args:
        columns: the header.
        digits: significant digits of numbers with a fraction; NaN and None are empty cells.
    """
    import pandas as pd

    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):

        def write(frame: pd.DataFrame, *, header: bool) -> None:
            texts = frame.select_dtypes(exclude="number")
            # Python's writer leaves a lone CR unquoted, and readers take it for a line's end.
            lone = any("\r" in str(cell) for column in texts for cell in frame[column])
            quoting: Any = csv.QUOTE_NONNUMERIC if lone else csv.QUOTE_MINIMAL
            frame.to_csv(
                handle,
                index=False,
                header=header,
                lineterminator="\n",
                float_format=f"%.{digits}g",
                quoting=quoting,
            )

        def append(rows: Iterable[Sequence[Any]]) -> None:
            rest = map(tuple, rows)
            while part := list(islice(rest, _ROWS)):
                frame = pd.DataFrame.from_records(part, columns=list(columns))
                for name in frame.select_dtypes(exclude="number"):
                    frame[name] = [guarded(c) if isinstance(c, str) else c for c in frame[name]]
                write(frame, header=False)

        write(pd.DataFrame(columns=list(columns)), header=True)
        yield append


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], digits: int = 8
) -> None:
    """Writes a whole table, see :func:`writing`."""
    with writing(path, columns, digits) as append:
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
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: damaged ({reason}); remove it and run again") from None
    if missing := [name for name in columns if name not in frame.columns]:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; run the {stage} stage again to remake it"
        )
    return frame
