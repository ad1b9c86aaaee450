"""Unpacks archives from the web: zip, and tar with any compression. What could write outside the
folder, or fill the disk, is refused before anything is written."""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from unet.errors import UserError, one_line
from unet.io.web_file import check_space

_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
    NotImplementedError,  # a compression of zip that Python lacks
)  # fmt: skip


def unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpacks an archive into a folder that exists.

    Args:
        name: of the archive, for error messages.

    Raises:
        UserError: it is no archive, or damaged; has a path that leads out of the folder, a link, a
            device or a password; or is larger than the free space on the disk.
    """
    opened = opener(archive)
    if opened is None:
        with archive.open("rb") as handle:
            head = handle.read(24)
        raise UserError(f"{name}: not a zip or tar archive (it begins with {head!r})")
    try:
        opened(archive, folder, name)
    except _DAMAGED as error:
        raise UserError(f"{name}: damaged ({one_line(error, 120)}); download it again") from None


def opener(path: Path) -> Callable[[Path, Path, str], None] | None:
    """What unpacks this file; None if it is no archive."""
    if zipfile.is_zipfile(path):
        return _zip
    return _tar if tarfile.is_tarfile(path) else None


def _zip(archive: Path, folder: Path, name: str) -> None:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            _check_name(info.filename, name)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(name, info.filename, "a link or a device")
            if info.flag_bits & 1:
                raise _refused(name, info.filename, "protected by a password")
        needed = sum(info.file_size for info in opened.infolist())
        check_space(folder, needed, f"{name}: unpacks to")
        opened.extractall(folder)


def _tar(archive: Path, folder: Path, name: str) -> None:
    needed = 0
    with tarfile.open(archive) as opened:
        for member in opened:
            _check_name(member.name, name)
            if not (member.isreg() or member.isdir()):
                raise _refused(name, member.name, "a link or a device")
            needed += member.size
            check_space(folder, needed, f"{name}: unpacks to at least")
        opened.extractall(folder, filter="data")


def _check_name(path: str, name: str) -> None:
    # Windows reads backslashes and drives, too.
    parts = re.split(r"[\\/]", path)
    if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", path):
        raise _refused(name, path, "a path that leads out of its folder")


def _refused(name: str, path: str, what: str) -> UserError:
    return UserError(f"{name}: {path!r} is {what}; nothing was unpacked")
