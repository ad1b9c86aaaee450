"""Whether raw files have changed since the manifest was made, without reading them. Light: this
runs at each start of the workflow."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unet.data.layouts import parts_of
from unet.data.names import relative
from unet.errors import UserError
from unet.files import digest, file_sha256, write_json

log = logging.getLogger(__name__)

Stamp = tuple[int, int]
MISSING: Stamp = (-1, 0)


def stamp(path: Path) -> Stamp:
    """Size in bytes and time of the last change in nanoseconds; of a folder, the sum of the sizes
    and the latest time below it; (-1, 0) where there is nothing."""
    try:
        status = path.stat()
        if not path.is_dir():
            return status.st_size, status.st_mtime_ns
        size, latest = 0, status.st_mtime_ns
        for entry in _below(path):
            status = entry.stat()
            latest = max(latest, status.st_mtime_ns)
            size += 0 if entry.is_dir() else status.st_size
        return size, latest
    except FileNotFoundError:
        return MISSING


def _below(folder: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir():
                yield from _below(Path(entry.path))


def fingerprint(
    files: Iterable[Path], root: Path, stored: Mapping[str, Any] | None, seen: Path | None = None
) -> str:
    """What stands for the raw files' content in the workflow.

    Args:
        files: all that the manifest depends on (see :func:`unet.data.layouts.list_files`).
        root: folder that names are relative to.
        stored: ``inputs.json`` of the last manifest. When all files have the names and the content
            of then (sizes and times, or else sha256), its fingerprint is given again, so that
            touched or copied files rerun nothing.
        seen: a small file where the hashes of touched files are kept, so that they are computed
            once and not at each start.

    Returns:
        64 hex digits.
    """
    stamps = {relative(path, root): (path, stamp(path)) for path in files}
    if stored is not None and set(stored["files"]) == set(stamps):
        with_hash = _Seen(seen)
        if all(_same(name, *stamps[name], stored["files"][name], with_hash) for name in stamps):
            with_hash.save()
            return str(stored["fingerprint"])
        with_hash.save()
    return digest(sorted([name, *at] for name, (_, at) in stamps.items()))


def _same(name: str, path: Path, now: Stamp, then: list[Any], hashes: _Seen) -> bool:
    size, time, sha256 = then
    if now == (size, time):
        return True
    return bool(now[0] == size and sha256 == hashes.of(name, path, now))


class _Seen:
    """Hashes of files that were touched since the manifest, kept from one start to the next."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._changed = path, False
        self._known: dict[str, list[Any]] = {}
        if path is not None and path.exists():
            try:
                self._known = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, OSError):
                log.debug("%s: not readable, made anew", path)

    def of(self, name: str, path: Path, now: Stamp) -> str:
        known = self._known.get(name)
        if known is None or (known[0], known[1]) != now:
            known = self._known[name] = [*now, file_sha256(path)]
            self._changed = True
        return str(known[2])

    def save(self) -> None:
        if self._path is not None and self._changed:
            try:
                write_json(self._path, self._known)
            except OSError:
                # A dry run by somebody without the right to write: the hashes are made again.
                log.debug("%s: not writable", self._path)


class Hashes:
    """sha256 of files, each read once, from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}
        self._found: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """64 hex digits; "" where it cannot be read. One for all of ``case_????.tif``."""
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if path not in self._found:
                self._found[path] = self._made(path)
            return self._found[path]

    def _made(self, path: Path) -> str:
        try:
            parts = parts_of(path)
            if parts != [path]:
                return digest([self.of(part) for part in parts])
            return file_sha256(path)
        except (UserError, OSError):
            # Missing or without the right to read: what opens it says so.
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
        value: the fingerprint that the manifest was asked for.
        stamps: of each file, taken before it was read: whoever edits it meanwhile is noticed.
        sha256: of a file ("" where it cannot be read).
    """
    files = {relative(p, root): [*at, sha256(p)] for p, at in stamps.items()}
    write_json(path, {"fingerprint": value, "root": str(root.absolute()), "files": files})
