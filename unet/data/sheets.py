"""Sheets: tables that people write by hand or export from a spreadsheet. Light."""

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
# Excel's text in each of its languages is separated by one of these.
_DELIMITERS = (",", ";", "\t")
# The longer mark comes first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip
# First bytes of workbooks, whatever their name: a ZIP file and an OLE one.
_BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
# Columns that mean something, whatever their case.
SHEET_COLUMNS = ("image", "label", "id", "group", "part", "split")


def read_rows(path: Path, warn: Warn) -> list[tuple[int, dict[str, str]]]:
    """The rows of a sheet that are not empty, with the line that each ends in.

    Separated by commas, semicolons or tabs, as the first line shows; UTF-8, UTF-16 with a mark, or
    else Windows-1252. The columns that mean something (``SHEET_COLUMNS``) may be in any case.

    Raises:
        UserError: it cannot be read, or has no column ``image``.
    """
    if path.suffix.lower() in WORKBOOKS:
        raise UserError(f"{path}: a spreadsheet's own format; {SAVE} and name that file")
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
        raise UserError(f"{path}: a spreadsheet's own format, not text; {SAVE}")
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
        raise UserError(f"{path}: holds NUL characters; {SAVE}")
    return text


def _delimited(text: str) -> tuple[str, TextIO]:
    """The delimiter by which the first line has a column ``image``; and the lines."""
    lines = io.StringIO(text, newline="")
    first = lines.readline()
    # Excel may say it itself.
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        return first[4], lines
    lines.seek(0)
    for delimiter in _DELIMITERS:
        names = next(csv.reader([first], delimiter=delimiter), [])
        if "image" in (name.strip().lower() for name in names):
            return delimiter, lines
    return ",", lines


def _known(path: Path, names: list[str]) -> list[str]:
    """The names, in lower case where they then mean something."""
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
        # Under its own name too, by which split.group may ask for it.
        row = dict(zip(names, values, strict=True))
        yield reader.line_num, row | dict(zip(known, values, strict=True))
    if longer:
        warn(
            f"{path.name}: line {longer[0]} has more cells than the first line"
            + (f" (so have {len(longer) - 1} others)" if longer[1:] else "")
            + "; a name that holds the separator must stand in quotes"
        )
