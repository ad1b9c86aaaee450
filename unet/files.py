"""Atomic writing of small files, locks, hashes, and the sentinel files of stores."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IFDIR, S_IFIFO, S_IFMT, S_IFSOCK, S_ISREG
from typing import Any

from unet.errors import UserError, one_line

# Windows has neither.
_O_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)
_O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)

log = logging.getLogger(__name__)
# A part of a file name that differs, such as {row}; a list such as {a,b} is none.
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLACES = frozenset({"row", "col", "column", "well"})


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same content."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a JSON-able value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


_KINDS = {S_IFDIR: "a folder", S_IFIFO: "a named pipe", S_IFSOCK: "a socket"}


def check_regular(path: Path, handle: int | None = None) -> None:
    """Refuses pipes, sockets and devices: reading them could hang or never end.

    Args:
        handle: the file's descriptor, if it is already open.

    Raises:
        UserError: it is one of these, or a folder.
        OSError: it does not exist.
    """
    mode = (path.stat() if handle is None else os.fstat(handle)).st_mode
    if not S_ISREG(mode):
        raise UserError(f"{path}: not a regular file ({_KINDS.get(S_IFMT(mode), 'a device')})")


def file_sha256(path: Path) -> str:
    """sha256 (64 hex digits) of a file, or of the names and contents of all files in a folder.

    Raises:
        UserError: it is neither (see :func:`check_regular`).
    """
    sha = hashlib.sha256()
    if path.is_dir():
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            sha.update(str(child.relative_to(path)).encode() + b"\0")
            sha.update(bytes.fromhex(file_sha256(child)))
        return sha.hexdigest()
    check_regular(path)
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which is renamed to ``path`` on success.

    On an error the temporary file or folder is removed and ``path`` stays unchanged. If ``path`` is
    an existing folder, all of it is replaced. Temporary files that a killed process left in the
    folder over an hour ago are removed.

    Args:
        sync: whether to wait until a file is on the disk (some milliseconds) before it is renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    # The lock shows that the file is still being written; one without a lock was left behind.
    with suppress(OSError):
        take_lock(handle)
    # mkstemp makes the file private to the user; results get the usual permissions.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)
        elif sync and temporary.exists():
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    finally:
        os.close(handle)


# Temporary files older than this may be removed. Younger ones may have just been created by another
# process, or be written by another machine whose locks are not visible here.
_LEFT_SECONDS = 3600.0
# Each folder is searched only once: with thousands of files that takes time.
_swept: set[Path] = set()


def _sweep(folder: Path) -> None:
    """Removes temporary files that no process has locked; stages clean up temporary folders."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            # Skip files of other users, on file systems without locks, or deleted in the meantime.
            with suppress(OSError):
                status = path.lstat()
                if not S_ISREG(status.st_mode) or time.time() - status.st_mtime < _LEFT_SECONDS:
                    continue
                with path.open("rb") as handle:
                    if take_lock(handle.fileno()):
                        path.unlink()


def take_lock(handle: int, *, shared: bool = False) -> bool:
    """Locks an open file until it is closed; False if another process holds it.

    Raises:
        OSError: the file system (or, on Windows, the system) has no locks.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "no file locks on this system") from None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Locks a file for this process; the lock ends with the process, even if it is killed.

    The last process to hold the lock removes the file. A killed process leaves the file behind, but
    it blocks nobody.

    Args:
        what: what this process does, for the error message in other processes ("training here").
        shared: other processes may hold the lock too, if they also pass ``shared``.

    Raises:
        UserError: another process holds the lock (a job can outlive a killed workflow).
    """
    path = path.absolute()  # the working folder may change before the lock is released
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _hold(path, what, shared)
    try:
        yield
    finally:
        with suppress(OSError):
            # If others still share the lock, they need the file.
            if (not shared or take_lock(handle)) and _is_at(handle, path):
                path.unlink()
        os.close(handle)


def _hold(path: Path, what: str, shared: bool) -> int:
    """Opens and locks the file, and makes sure that it is still at its path afterwards."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _O_CLOEXEC, 0o666)
        try:
            taken = take_lock(handle, shared=shared)
        except OSError as error:
            # Some network file systems have no locks, and most runs do not need them.
            log.warning(
                "%s: cannot be locked (%s); do not start a second run", path, error.strerror
            )
            return handle
        there = _is_at(handle, path)
        if taken and there:
            return handle
        os.close(handle)
        if there:
            raise UserError(f"{path.parent}: another process is {what}; wait for it or stop it")
        # Its holder removed the file after it was opened here: try again with a new one.


def _is_at(handle: int, path: Path) -> bool:
    """Whether this open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def lock_of(store: Path) -> Path:
    """The lock file of a store. It is next to the store: unknown files inside would be removed."""
    return store.with_name(f".{store.name}.lock")


def remove(path: Path) -> None:
    """Deletes a file, or a folder with its contents; does nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_regular(path: Path, most: int) -> str:
    """The text (UTF-8) of a small file from an untrusted source.

    Args:
        most: maximum size in bytes.

    Raises:
        UserError: it is not a regular file (see :func:`check_regular`), or is too large.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    check_regular(path)
    # It may have become a pipe since: opening a pipe without a writer would block.
    handle = os.open(path, os.O_RDONLY | _O_NONBLOCK | _O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        check_regular(path, handle)
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: larger than {most / 1e6:g} MB; give a smaller file")
    return data.decode("utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path) -> Any:
    """Reads a file that :func:`write_json` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); remove it and run again") from None


def write_sentinel(
    path: Path,
    version: int,
    images: dict[str, Any],
    made_by: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Writes the JSON file that marks a store as finished. Call it last.

    Args:
        version: the stage's version constant.
        images: image id -> facts about the image; together they must determine the store's content.
        made_by: see :mod:`unet.provenance`; the entry ``content`` does not depend on it.
        more: further entries that describe the whole store.
    """
    value = {"version": version, "images": images, **more}
    made = {} if made_by is None else {"made_by": dict(made_by)}
    write_json(path, {**value, **made, "content": digest(value)})


def check_complete(store: Path, ids: Iterable[str], remedy: str) -> None:
    """Checks that a store has all images that its sentinel lists; one that is being made has none.

    Args:
        ids: the images that are there.
        remedy: which stage makes them.

    Raises:
        UserError: images are missing.
    """
    done = store.with_suffix(".json")
    missing = sorted(set(read_json(done)["images"]) - set(ids)) if done.is_file() else []
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{store / missing[0]}: missing{more}; remove {done} and run again to {remedy}"
        )


# Suffixes of tables that people write: those that can be read, and common ones that cannot.
SHEETS = (".csv", ".tsv")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


def is_pattern(text: str) -> bool:
    """Whether a path names images by their place on a plate: ``{row}{col}_f{field}.tif``."""
    return not _PLACES.isdisjoint(PLACEHOLDER.findall(text))


def is_sheet(name: str) -> bool:
    """Whether a file with this name counts as a sheet; workbooks do, though they cannot be read."""
    return name.lower().endswith(SHEETS + WORKBOOKS)
