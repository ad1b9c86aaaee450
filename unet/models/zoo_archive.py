"""Opens packages of the BioImage Model Zoo that may come from anywhere.

Nothing is unpacked to the disk, nothing is fetched from the network, and no code in a package is
executed. Each file that the description names is checked against its hash.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from unet.errors import UserError, one_line

# Names of the description, the newest first.
DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")
LONGEST_DESCRIPTION = 2 << 20
# A file that expands more than this is no array of floats but made to fill the memory.
MOST_EXPANDED, SMALL = 50, 64 << 20


@dataclass(frozen=True)
class Package:
    """An opened package.

    Attributes:
        path: of the zip file.
        about: its description.
    """

    path: Path
    about: Mapping[str, Any]

    def weights(self, form: str) -> Mapping[str, Any] | None:
        """What the description says of the weights of this format; None if there are none."""
        weights = self.about.get("weights")
        entry = weights.get(form) if isinstance(weights, Mapping) else None
        return entry if isinstance(entry, Mapping) else None

    def file(self, entry: Any, what: str) -> bytes:
        """The content of a file that the description names.

        Args:
            entry: the part of the description with ``source`` and ``sha256``.
            what: its name in messages.

        Raises:
            UserError: it is not in the package, damaged, or not the one that was described.
        """
        source = entry.get("source") if isinstance(entry, Mapping) else None
        if not isinstance(source, str):
            raise UserError(f"{self.path}: names no file for {what}; make the package again")
        if "://" in source:
            raise UserError(
                f"{self.path}: {what} is not in the package but at {one_line(source, 100)}; "
                "nothing is downloaded: get a package that contains it"
            )
        content = _member(self.path, source)
        wanted = entry.get("sha256")
        # The format allows capitals.
        wanted = wanted.strip().lower() if isinstance(wanted, str) else wanted
        if wanted is not None and hashlib.sha256(content).hexdigest() != wanted:
            raise UserError(
                f"{self.path}: {source} is not the file that the package describes (its sha256 "
                "differs); get the package again"
            )
        return content


def open_package(path: Path) -> Package:
    """Opens a package and reads its description.

    Raises:
        UserError: it is missing, damaged, or no package of a model.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such package")
    names = _names(path)
    found = next((name for name in DESCRIPTIONS if name in names), None)
    if found is None:
        raise UserError(
            f"{path}: no package of the BioImage Model Zoo: it has no {DESCRIPTIONS[0]}"
        )
    try:
        about = yaml.load(_member(path, found, LONGEST_DESCRIPTION), _Plain)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = one_line(error, 160)
        raise UserError(f"{path}: {found} is not readable ({reason})") from None
    if not isinstance(about, dict) or about.get("type") != "model":
        kind = short(about.get("type")) if isinstance(about, dict) else "not a mapping"
        raise UserError(f"{path}: describes no model (type {kind})")
    version = str(about.get("format_version"))
    if version.split(".")[:2] != ["0", "5"]:
        remedy = "convert it with `bioimageio update-format` (pip install bioimageio.core)"
        if not re.match(r"0\.[0-4](\.|$)", version):
            remedy = "get the model in format 0.5, or a newer version of this program"
        raise UserError(
            f"{path}: has format {one_line(version, 40)}, only 0.5 can be read; {remedy}"
        )
    return Package(path, about)


def short(value: Any) -> str:
    """A value of a description, for messages."""
    try:
        return one_line(reprlib.repr(value), 100)
    except ValueError:  # a whole number of too many digits to be written
        return "a number of thousands of digits"


class _Plain(yaml.SafeLoader):
    """Plain values without aliases, with which a small text can stand for a huge value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases, which descriptions do not need")
        return super().compose_node(parent, index)


def _names(path: Path) -> list[str]:
    """The names of the files in the zip file, all of which lie below its root."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path}: not a zip file, or damaged ({one_line(error, 100)}); get it again"
        ) from None
    for name in names:
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or PureWindowsPath(name).drive:
            raise UserError(
                f"{path}: refused, it names a file outside of itself ({one_line(name, 80)})"
            )
    if len(set(names)) < len(names):
        raise UserError(f"{path}: refused, it has two files of the same name")
    return names


def _member(path: Path, name: str, most: int | None = None) -> bytes:
    """The content of a file in the zip file, with its checksum checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(name.removeprefix("./"))
            size, packed = info.file_size, info.compress_size
            bomb = size > SMALL and size > MOST_EXPANDED * max(packed, 1)
            if bomb or (most is not None and size > most):
                raise UserError(
                    f"{path}: refused, {name} would expand from {packed / 1e6:.3g} to "
                    f"{size / 1e6:.3g} MB"
                )
            return archive.read(info)
    except KeyError:
        raise UserError(f"{path}: has no file {one_line(name, 80)}; get it again") from None
    except UserError:
        raise
    except Exception as error:
        # zipfile, zlib and others each raise their own errors for damaged data.
        reason = one_line(error, 100)
        raise UserError(f"{path}: {name} is damaged ({reason}); get it again") from None
