"""Reads sheets: tables that people write by hand or export from a spreadsheet. Light."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from unet.data.dataset_warnings import Warn
from unet.errors import UserError
from unet.files import WORKBOOKS, check_regular

SAVE = "save it as CSV (UTF-8)"
# In every language, Excel separates text with one of these.
_DELIMITERS = (",", ";", "\t")
# The longer marks come first: the mark of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip
# First bytes of workbooks (ZIP and OLE files), whatever their name.
_BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
# Columns with a meaning, in upper or lower case.
SHEET_COLUMNS = ("image", "label", "id", "group", "part", "split")


def read_rows(path: Path, warn: Warn) -> list[tuple[int, dict[str, str]]]:
    """The non-empty rows of a sheet, with the number of the line where each ends.

    Cells are separated by commas, semicolons or tabs, as the first line shows. The encoding is
    UTF-8, UTF-16 with a mark, or otherwise Windows-1252. The columns with a meaning
    (``SHEET_COLUMNS``) may be in upper or lower case.

    Raises:
        UserError: it cannot be read, or has no column ``image``.
    """
    if path.suffix.lower() in WORKBOOKS:
        raise UserError(f"{path}: a spreadsheet file; {SAVE} and name that file")
    try:
        check_regular(path)
        text = _text(path, path.read_bytes(), warn)
        delimiter, lines = _delimited(text)
        reader = csv.reader(lines, delimiter=delimiter)
        names = [name.strip() for name in next(reader, [])]
        return list(_rows(path, reader, (names, _known(path, names)), warn))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); {SAVE}") from None


def _text(path: Path, data: bytes, warn: Warn) -> str:
    if data.startswith(_BINARY):
        raise UserError(f"{path}: a spreadsheet file, not text; {SAVE}")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(
                f"{path}: not valid {encoding.upper()} ({error.reason}); {SAVE}"
            ) from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise UserError(f"{path}: neither UTF-8 nor Windows-1252; {SAVE}") from None
        warn(f"{path.name}: not UTF-8; read as Windows-1252. If names come out wrong, {SAVE}")
    if "\0" in text:
        raise UserError(f"{path}: contains NUL characters; {SAVE}")
    return text


def _delimited(text: str) -> tuple[str, TextIO]:
    """The delimiter that gives the first line a column ``image``; and the lines."""
    lines = io.StringIO(text, newline="")
    first = lines.readline()
    # Excel may declare the delimiter.
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        return first[4], lines
    lines.seek(0)
    for delimiter in _DELIMITERS:
        names = next(csv.reader([first], delimiter=delimiter), [])
        if "image" in (name.strip().lower() for name in names):
            return delimiter, lines
    return ",", lines


def _known(path: Path, names: list[str]) -> list[str]:
    """The names; those of ``SHEET_COLUMNS`` in lower case."""
    clear = [name.lower() if name.lower() in SHEET_COLUMNS else name for name in names]
    if "image" not in clear:
        there = ", ".join(filter(None, names)) or "none"
        raise UserError(
            f"{path}: a column 'image' is needed (found: {there}); the first line names the "
            "columns, separated by commas, semicolons or tabs"
        )
    double = [name for name, count in Counter(clear).items() if count > 1 and name in SHEET_COLUMNS]
    if double:
        raise UserError(f"{path}: two columns are called {double[0]!r}; rename one")
    return clear


def _rows(
    path: Path, reader: Any, headers: tuple[list[str], list[str]], warn: Warn
) -> Iterator[tuple[int, dict[str, str]]]:
    names, known = headers
    count, longer = len(names), list[int]()
    for cells in reader:
        values = [cell.strip() for cell in cells]
        if not any(values):
            continue
        if any(values[count:]):
            longer.append(reader.line_num)
        values = [*values, *[""] * count][:count]
        # Also under the original names, which split.group may use.
        row = dict(zip(names, values, strict=True))
        yield reader.line_num, row | dict(zip(known, values, strict=True))
    if longer:
        warn(
            f"{path.name}: line {longer[0]} has more cells than the first line"
            + (f" (and {len(longer) - 1} other lines)" if longer[1:] else "")
            + "; put names that contain the separator in quotes"
        )
