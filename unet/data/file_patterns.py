"""Finds the images of a plate by a pattern such as ``{row}{col}_f{field}_c{channel}.tif``.

A placeholder in braces stands for a part of the name. The files of one field that differ in
``{channel}`` are the channels of one image (:mod:`unet.io.channel_files`). The other placeholders
make its id and its columns, as in a sheet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.data.globs import translated
from unet.errors import UserError, how_many
from unet.files import PLACEHOLDER

ALIASES = {"col": "column", "time": "t", "c": "channel", "ch": "channel", "site": "field"}
# Letters of an id in front of these numbers; the value of any other placeholder follows its name.
_LETTERS = {"field": "f", "z": "z", "t": "t"}
_NUMBER = r"\d+"
_VALUES = {"row": r"[A-Za-z]{1,2}|\d{1,2}", "column": r"\d{1,3}", "field": _NUMBER, "z": _NUMBER,
           "t": _NUMBER}  # fmt: skip
# Where a row is followed by a column at once, digits could belong to either.
_LETTER_ROW = r"[A-Za-z]{1,2}"
_ANY = r"[^/{},]+?"
CHANNEL = "channel"


@dataclass(frozen=True)
class PlateImage:
    """An image of a plate, of one file or one per channel.

    Attributes:
        path: of the file, or the path that stands for those of all channels.
        id: such as ``A1-f0``, without padding zeros.
        group: its well, after its plate if the pattern has ``{plate}``.
        columns: plate, well, row, column, field, and the other placeholders.
    """

    path: Path
    id: str
    group: str
    columns: dict[str, str]


@dataclass(frozen=True)
class _File:
    """A file that matches: the values of its placeholders, and where its name differs from those of
    the other channels, from left to right."""

    path: str
    values: dict[str, str]
    channel: str
    spans: tuple[tuple[int, int], ...]


def names_of_pattern(pattern: str, key: str) -> list[str]:
    """The placeholders of a pattern, in its order, by their usual names.

    Args:
        key: of the config, for messages.

    Raises:
        UserError: it does not say which well an image belongs to.
    """
    names = [ALIASES.get(name, name) for name in PLACEHOLDER.findall(_spelt(pattern))]
    for name, written in (("row", "{row}"), ("column", "{col}")):
        if name not in names:
            raise UserError(
                f"{key}: {pattern}: no {written}; write {{row}} and {{col}}, or {{well}}"
            )
    return list(dict.fromkeys(names))


def _spelt(pattern: str) -> str:
    """The pattern with a row and a column instead of a well."""
    return pattern.replace("{well}", "{row}{col}")


def expression_of(pattern: str) -> re.Pattern[str]:
    """A regular expression for a pattern, with a named group per placeholder."""
    pattern = _spelt(pattern)
    texts = [translated(text) for text in PLACEHOLDER.sub("\0", pattern).split("\0")]
    parts, seen = [texts[0]], set[str]()
    found = list(PLACEHOLDER.finditer(pattern))
    for k, match in enumerate(found):
        name = ALIASES.get(match[1], match[1])
        if name in seen:
            # In a group of its own, because the channel may be there, too.
            parts += [f"((?P={name}))", texts[k + 1]]
            continue
        seen.add(name)
        value = _VALUES.get(name, _ANY)
        if name == "row" and k + 1 < len(found) and match.end() == found[k + 1].start():
            value = _LETTER_ROW
        parts += [f"(?P<{name}>{value})", texts[k + 1]]
    return re.compile("".join(parts))


def plate_images(
    where: Path, fixed: Path, paths: Iterable[Path], key: str
) -> tuple[list[PlateImage], list[Path]]:
    """The images that the files are, and the files that do not match.

    Args:
        where: the pattern.
        fixed: its folders before the first placeholder.
        key: of the config, for messages.

    Raises:
        UserError: two files are the same channel of the same image.
    """
    pattern = where.relative_to(fixed).as_posix()
    names, expression = names_of_pattern(pattern, key), expression_of(pattern)
    fields: dict[str, list[_File]] = {}
    left: list[Path] = []
    for path in paths:
        match = expression.fullmatch(path.relative_to(fixed).as_posix())
        if match is None:
            left.append(path)
            continue
        one = _file(match)
        fields.setdefault(_id(one.values, names), []).append(one)
    channels = sorted({one.channel for own in fields.values() for one in own}, key=_by_number)
    for name, own in fields.items():
        channel, number = Counter(one.channel for one in own).most_common(1)[0]
        if number > 1:
            both = " and ".join([one.path for one in own if one.channel == channel][:2])
            what = f"channel {channel} of {name}" if channel else name
            raise UserError(
                f"{key}: {both} are both {what}; write a placeholder in {pattern} for what differs"
            )
    return [_image(name, own, channels, fixed) for name, own in fields.items()], left


def _file(match: re.Match[str]) -> _File:
    values = {name: _plain(name, text) for name, text in match.groupdict().items()}
    channel = values.pop(CHANNEL, "")
    known = {match.re.groupindex[name] for name in values}
    # The channel, and what wildcards stand for.
    spans = [match.span(k) for k in range(1, match.re.groups + 1) if k not in known]
    return _File(match.string, values, channel, tuple(spans))


def _plain(name: str, text: str) -> str:
    """A value without padding zeros; rows as letters."""
    if name == "row":
        return row_letters(int(text)) if text.isdecimal() else text.upper()
    return str(int(text)) if name in _VALUES else text


def row_letters(number: int) -> str:
    """A, B, .. Z, AA, .. for the rows 1, 2, .. of a plate; 0 stays a number."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters or "0"


def _by_number(text: str) -> tuple[int, str]:
    return (int(text) if text.isdecimal() else -1, text)


def _id(values: dict[str, str], names: Sequence[str]) -> str:
    well = values["row"] + values["column"]
    first = [values["plate"]] if "plate" in values else []
    rest = [name for name in names if name in values and name not in ("plate", "row", "column")]
    # The field first, as in the ids of OME-Zarr plates.
    rest.sort(key=lambda name: name != "field")
    return "-".join([*first, well, *(f"{_LETTERS.get(n, n)}{values[n]}" for n in rest)])


def _image(name: str, files: list[_File], channels: list[str], fixed: Path) -> PlateImage:
    values = files[0].values
    well = values["row"] + values["column"]
    plate = {"plate": values["plate"]} if "plate" in values else {}
    columns = {**plate, "well": well, "row": values["row"], "column": values["column"],
               "field": values.get("field", ""), **values}  # fmt: skip
    group = f"{plate['plate']}-{well}" if plate else well
    path = files[0].path if len(channels) == 1 else _listed(files, channels)
    return PlateImage(fixed / path, name, group, columns)


def _listed(files: list[_File], channels: list[str]) -> str:
    """The path that stands for all channels. The file of a missing one is in it, too, so that
    whoever opens the image learns which it is."""
    own = {one.channel: one for one in files}
    some = files[0]
    path, end = "", len(some.path)
    for k, (start, stop) in reversed(list(enumerate(some.spans))):
        texts = [_text(own.get(channel), k, some, channel) for channel in channels]
        part = texts[0] if len(set(texts)) == 1 else "{" + ",".join(texts) + "}"
        path, end = part + some.path[stop:end] + path, start
    return some.path[:end] + path


def _text(one: _File | None, k: int, other: _File, channel: str) -> str:
    """What is in a place of a channel's path; for a missing file, what can be told from another."""
    if one is None:
        start, stop = other.spans[k]
        return channel if other.path[start:stop] == other.channel else "*"
    start, stop = one.spans[k]
    return one.path[start:stop]


def left_out_line(left: Sequence[Path], where: Path, key: str) -> str:
    """A warning about files that look alike but do not match."""
    return (
        f"{key}: {how_many(len(left), 'file')} beside the images not read, since the name does not "
        f"fit {where.name}, such as {left[0].name}"
    )
