"""Small files that appear whole or not at all, hashes, and the sentinel of a store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IFDIR, S_IFIFO, S_IFMT, S_IFSOCK, S_ISREG
from typing import Any

from unet.errors import UserError, one_line

log = logging.getLogger(__name__)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same content."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a JSON-able value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


_KINDS = {S_IFDIR: "a folder", S_IFIFO: "a named pipe", S_IFSOCK: "a socket"}


def check_regular(path: Path, handle: int | None = None) -> None:
    """Refuses what reading could hang on, or never come to an end with: pipes, sockets, devices.

    Args:
        handle: of the open file, where it is open already.

    Raises:
        UserError: it is one of them, or a folder.
        OSError: there is nothing.
    """
    mode = (path.stat() if handle is None else os.fstat(handle)).st_mode
    if not S_ISREG(mode):
        raise UserError(f"{path}: not a regular file ({_KINDS.get(S_IFMT(mode), 'a device')})")


def file_sha256(path: Path) -> str:
    """sha256 (64 hex digits) of a file, or of all files below a folder with their names.

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
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which takes the name ``path`` on success.

    On an error the temporary file or folder is removed and ``path`` stays as it was. A folder
    that is already there under ``path`` is replaced as a whole. Temporary files that a killed
    process left in the folder over an hour ago are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    # Held as long as it is written: one that nobody holds was left.
    with suppress(OSError):
        take_lock(handle)
    # mkstemp makes it private to the user; results are as open as any other file.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)
        elif temporary.exists():
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    finally:
        os.close(handle)


# Age of a temporary file that may be a killed process's. Younger ones may just have been made by
# another one, or be written on another machine, where the file system's locks do not reach.
_LEFT_SECONDS = 3600.0
# Each folder is looked through once: with thousands of files that takes its time.
_swept: set[Path] = set()


def _sweep(folder: Path) -> None:
    """Removes temporary files that nobody holds any more; folders are their stages' matter."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            # Of another user, on a file system without locks, gone meanwhile: left alone.
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
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Holds a lock file for this process; the lock dies with the process, however it ends.

    The last one to hold it removes the file; that of a killed process stays, and locks nobody out.

    Args:
        what: this process does, for the message to others ("training here").
        shared: others may hold it too, if they share it.

    Raises:
        UserError: another process holds it (a job can outlive a killed workflow).
    """
    path = path.absolute()  # the process may end in another folder
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _hold(path, what, shared)
    try:
        yield
    finally:
        with suppress(OSError):
            # Where others still share it the file is theirs.
            if (not shared or take_lock(handle)) and _is_at(handle, path):
                path.unlink()
        os.close(handle)


def _hold(path: Path, what: str, shared: bool) -> int:
    """Opens and locks a file that is still at its path then."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            taken = take_lock(handle, shared=shared)
        except OSError as error:
            # Some network file systems have no locks, and most runs need none.
            log.warning("%s: cannot be locked (%s); start no second run", path, error.strerror)
            return handle
        there = _is_at(handle, path)
        if taken and there:
            return handle
        os.close(handle)
        if there:
            raise UserError(f"{path.parent}: another process is {what}; wait for it or stop it")
        # Its holder removed it between the opening and the locking: it locks nobody out any more.


def _is_at(handle: int, path: Path) -> bool:
    """Whether this open file is the one at the path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def lock_of(store: Path) -> Path:
    """The lock file of a store: beside it, as what is strange inside of it is removed."""
    return store.with_name(f".{store.name}.lock")


def remove(path: Path) -> None:
    """Deletes a file or a folder with all that is in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_regular(path: Path, most: int) -> str:
    """The text (UTF-8) of a small file that may come from anywhere.

    Args:
        most: bytes that it may have.

    Raises:
        UserError: it is no regular file (see :func:`check_regular`); it is larger.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    check_regular(path)
    # Should it be a pipe by now: one that nobody writes to would hold up the opening itself.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        check_regular(path, handle)
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: larger than {most / 1e6:g} MB; give a file of less")
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
    """Writes the JSON that stands for a finished store (last, when all else is in place).

    Args:
        version: the stage's version constant.
        images: image id -> what is worth knowing of it; must determine the store's content.
        made_by: see :mod:`unet.provenance`; the entry ``content`` does not depend on it.
        more: further entries that describe the store as a whole.
    """
    value = {"version": version, "images": images, **more}
    made = {} if made_by is None else {"made_by": dict(made_by)}
    write_json(path, {**value, **made, "content": digest(value)})


# Tables that people write: what is read, and what they try that is not.
SHEETS = (".csv", ".tsv")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


def is_sheet(name: str) -> bool:
    """Whether a file of this name is taken for a sheet, of which some cannot be read."""
    return name.lower().endswith(SHEETS + WORKBOOKS)
