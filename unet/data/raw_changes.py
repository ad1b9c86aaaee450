"""Checks whether raw files have changed since the manifest was made, without reading them. Light:
this runs at each start of the workflow."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from unet.data.file_names import relative
from unet.data.layouts import plain_folders
from unet.data.raw_files import RawSource
from unet.errors import UserError
from unet.files import digest, write_json
from unet.io import own_labels
from unet.io.array_paths import split_inside
from unet.io.channel_files import parts_of
from unet.io.formats import SUFFIXES
from unet.io.own_labels import image_sha256

log = logging.getLogger(__name__)

Stamp = tuple[int, int]
NO_FILE: Stamp = (-1, 0)
# Stamp of a pipe or a device, whose time may change at any moment; these are never read.
SPECIAL: Stamp = (-2, 0)
# Errors for a missing file, and for a link to nowhere or to itself.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def stamp(path: Path) -> Stamp:
    """Size in bytes and time of the last change in nanoseconds. For a folder, the sum of the sizes
    and the latest time below it, without the labels that this pipeline wrote; ``NO_FILE`` if the
    path is missing, ``SPECIAL`` if it is neither a file nor a folder."""
    try:
        status = path.stat()
        if S_ISREG(status.st_mode):
            return status.st_size, status.st_mtime_ns
        if not S_ISDIR(status.st_mode):
            return SPECIAL
        size, latest, left_out = 0, status.st_mtime_ns, frozenset[Path]()
        if (was := own_labels.before(path)) is not None:
            # As before the results were written into it.
            left_out = own_labels.left_out_of(path, was)
            for time, text in was.lists.values():
                size, latest = size + len(text.encode()), max(latest, time)
        for status in _below(path, left_out):
            latest = max(latest, status.st_mtime_ns)
            size += 0 if S_ISDIR(status.st_mode) else status.st_size
        return size, latest
    except OSError as error:
        if error.errno in _NOT_THERE:
            return NO_FILE
        raise


def _below(
    folder: Path, left_out: frozenset[Path], above: tuple[Path, ...] = ()
) -> Iterable[os.stat_result]:
    """All entries, including those in linked folders. A link to a folder that contains it is
    skipped; for a link to nothing, the status is that of the link."""
    above = (*above, folder.resolve())
    with os.scandir(folder) as entries:
        for entry in entries:
            if left_out and Path(entry.path) in left_out:
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
                status = entry.stat(follow_symlinks=False)
            if not S_ISDIR(status.st_mode):
                yield status
            elif not entry.is_symlink() or Path(entry.path).resolve() not in above:
                yield status
                yield from _below(Path(entry.path), left_out, above)


def fingerprint(
    files: Iterable[Path], root: Path, stored: Mapping[str, Any] | None, seen: Path | None = None
) -> str:
    """A hash that represents the raw files' content in the workflow.

    Args:
        files: all files that the manifest depends on (see :func:`unet.data.layouts.list_files`).
        root: folder that names are relative to.
        stored: ``inputs.json`` of the last manifest. If all files still have the same names and
            content (sizes and times, or otherwise sha256), its fingerprint is returned, so that
            touched or copied files rerun nothing.
        seen: a small file with the hashes of touched files, so that they are computed only once and
            not at each start.

    Returns:
        64 hex digits.
    """
    stamps = {relative(path, root): (path, stamp(path)) for path in files}
    if stored is not None and set(stored["files"]) == set(stamps):
        with_hash = _SeenHashes(seen)
        if all(_same(name, *stamps[name], stored["files"][name], with_hash) for name in stamps):
            with_hash.save()
            return str(stored["fingerprint"])
        with_hash.save()
    return digest(sorted([name, *at] for name, (_, at) in stamps.items()))


def _same(name: str, path: Path, now: Stamp, then: list[Any], hashes: _SeenHashes) -> bool:
    size, time, sha256 = then
    if now == (size, time):
        return True
    return bool(now[0] == size and sha256 == hashes.of(name, path, now))


class _SeenHashes:
    """Hashes of files touched since the manifest was made, kept from one start to the next."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._changed = path, False
        self._known: dict[str, list[Any]] = {}
        if path is not None and path.exists():
            try:
                self._known = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, OSError):
                log.debug("%s: not readable, created again", path)

    def of(self, name: str, path: Path, now: Stamp) -> str:
        known = self._known.get(name)
        if known is None or (known[0], known[1]) != now:
            known = self._known[name] = [*now, image_sha256(path)]
            self._changed = True
        return str(known[2])

    def save(self) -> None:
        if self._path is not None and self._changed:
            try:
                write_json(self._path, self._known)
            except OSError:
                # A dry run without write permission: the hashes are computed again next time.
                log.debug("%s: not writable", self._path)


class FolderListing:
    """One hash of the names, sizes and times in the raw folders, taken when they matched the
    manifest. While it stays the same, files need not be matched with each other, so a start with
    hundreds of thousands of files is ten times faster.

    Args:
        path: file for the hash.
        source: the dataset.
        inputs: ``inputs.json`` of the manifest.
    """

    def __init__(self, path: Path, source: RawSource, inputs: Path) -> None:
        self._path = path
        folders = plain_folders(source)
        found = None if folders is None else listing(folders)
        # Taken before anything is compared, so that later changes are noticed at the next start.
        self._now = found and digest([found, list(stamp(inputs)), repr(source)])

    def fingerprint(self) -> str | None:
        """The manifest's fingerprint if nothing has changed; None = compare the files."""
        try:
            then = json.loads(self._path.read_text(encoding="utf-8"))
            same = self._now is not None and then["listing"] == self._now
            return str(then["fingerprint"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, value: str) -> None:
        """Stores that the folders match the manifest with this fingerprint."""
        if self._now is None:
            return
        try:
            write_json(self._path, {"listing": self._now, "fingerprint": value})
        except OSError:
            log.debug("%s: not writable", self._path)


def listing(folders: Sequence[Path]) -> str | None:
    """A hash of the names, sizes and times of all entries in the folders; None if an image is a
    folder itself, or a folder cannot be read."""
    sha = hashlib.sha256()
    try:
        for folder in folders:
            rows = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat()
                    if S_ISDIR(status.st_mode) and entry.name.lower().endswith(tuple(SUFFIXES)):
                        return None
                    # A slash cannot occur in a name.
                    rows.append(f"{entry.name}/{status.st_size}/{status.st_mtime_ns}/")
            rows.sort()
            sha.update(f"{folder}//{''.join(rows)}/".encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    return sha.hexdigest()


class Hashes:
    """sha256 of files, each read once, from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}
        self._found: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """64 hex digits, or "" for an unreadable file. Files of channels get a single one."""
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if path not in self._found:
                self._found[path] = self._made(path)
            return self._found[path]

    def _made(self, path: Path) -> str:
        try:
            parts = parts_of(path)
            if inside := split_inside(path)[1]:
                return digest([self.of(parts[0]), inside])
            if parts != [path]:
                return digest([self.of(part) for part in parts])
            return image_sha256(path)
        except (UserError, OSError):
            # Missing, or no read permission: opening the file reports it.
            return ""


def write_inputs(
    path: Path,
    root: Path,
    value: str,
    stamps: Mapping[Path, Stamp],
    sha256: Callable[[Path], str],
) -> None:
    """Writes ``inputs.json``: fingerprint, root, and [size, time, sha256] of each file.

    Args:
        value: the fingerprint of the requested manifest.
        stamps: of each file, taken before it was read, so that later edits are noticed.
        sha256: returns the hash of a file ("" if it cannot be read).
    """
    files = {relative(p, root): [*at, sha256(p)] for p, at in stamps.items()}
    write_json(path, {"fingerprint": value, "root": str(root.absolute()), "files": files})
