"""Downloads public datasets: fetches the files of a set, checks their hashes, unpacks them.

A set lies in ``<data_root>/<name>``. ``<data_root>/<name>.download.json`` beside it says what the
folder was made from; it stays when the folder is deleted, so that the next download is compared
with it. The folder appears by rename, after everything in it is complete.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unet.config.public_datasets import PublicSet, RemoteFile, public_set
from unet.data.written_sheet import write_sheet
from unet.errors import UserError, how_many
from unet.files import check_regular, locked, read_json, remove, write_json
from unet.io.archives import opener, unpack
from unet.io.web_file import fetch

log = logging.getLogger(__name__)

# Archives, by their suffixes, are unpacked; other files are kept as they are.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_WAIT = 1.0


@dataclass(frozen=True)
class Downloaded:
    """A public dataset on this disk.

    Attributes:
        folder: holds its files.
        hashes: name of each file that was fetched -> sha256.
        fetched: whether it was downloaded now; otherwise it was there already.
    """

    folder: Path
    hashes: dict[str, str]
    fetched: bool


def folder_of(name: str, root: Path) -> Path:
    """Where a set's files lie."""
    return root / name


def record_of(name: str, root: Path) -> Path:
    """The file beside that folder that says what it was made from."""
    return root / f"{name}.download.json"


def is_there(name: str, root: Path) -> bool:
    """Whether the set was downloaded into ``root``."""
    return folder_of(name, root).is_dir() and record_of(name, root).is_file()


def download_set(name: str, root: Path, source: str = "", key: str = "--from") -> Downloaded:
    """Downloads a set, unless it is there.

    Args:
        name: in ``unet/config/public_datasets.yaml``.
        root: the folder that holds the folders of all sets.
        source: an address or a file to use instead of the set's own address; for several files the
            address (ending in ``/``) or folder that holds all of them.
        key: where the user writes ``source``, for error messages.

    Raises:
        UserError: it cannot be fetched, has another hash than it should have, or cannot be
            unpacked.
    """
    found, folder, record = public_set(name), folder_of(name, root), record_of(name, root)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f".{name}.lock"):
        known = read_json(record) if record.is_file() else {}
        if folder.exists():
            return Downloaded(folder, _checked(found, folder, record, known), False)
        sources = [_source(found, file, source, key) for file in found.files]
        log.info("%s: %s", name, found.shows)
        log.info("licence: %s; cite: %s", found.licence, found.cite)
        hashes, paths = {}, []
        for file, given in zip(found.files, sources, strict=True):
            path = _fetched(given, root / f".{name}.{file.filename}", key)
            hashes[file.filename] = _verified(file, path, given, known, record)
            paths.append(path)
        _unpack(name, found, paths, root, record, dict(zip(hashes, sources, strict=True)), hashes)
        for path in paths:
            if path.parent == root and path.name.startswith(f".{name}."):
                remove(path)
    return Downloaded(folder, hashes, True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits while another process downloads the same set."""
    with ExitStack() as held:
        for attempt in range(10**9):
            try:
                held.enter_context(locked(lock, "downloading"))
                break
            except UserError as error:
                if attempt == 0:
                    log.info("%s", str(error).replace("wait for it or stop it", "waiting for it"))
                time.sleep(_WAIT)
        yield


def _source(found: PublicSet, file: RemoteFile, source: str, key: str) -> str:
    """The address or path of a file."""
    several = len(found.files) > 1
    if not source:
        if file.url:
            return file.url
        raise UserError(
            f"{file.filename}: cannot be downloaded by a program; {found.by_hand} "
            f"({found.page}), and give it with {key}"
        )
    if "://" in source:
        if several and not source.endswith("/"):
            raise UserError(f"{key}: got {source}, but {_holds(found)}; end it with /")
        return source + quote(file.filename) if source.endswith("/") else source
    path = Path(source).expanduser()
    if path.is_dir():
        path /= file.filename
    elif several:
        raise UserError(f"{key}: got {source}, but {_holds(found)}")
    if not path.is_file():
        raise UserError(f"{key}: no such file: {path}")
    check_regular(path)
    return str(path)


def _holds(found: PublicSet) -> str:
    names = ", ".join(file.filename for file in found.files)
    return f"the set has {len(found.files)} files; give the folder that holds {names}"


def _fetched(given: str, target: Path, key: str) -> Path:
    """The file, on this disk."""
    if "://" not in given:
        return Path(given).expanduser()
    # One that is complete was fetched by a download that was stopped while it unpacked.
    if not target.is_file():
        log.info("fetching %s", given)
        fetch(given, target, f"check address and connection, or write another one with {key}")
    return target


def _verified(file: RemoteFile, path: Path, given: str, known: dict[str, Any], record: Path) -> str:
    """The sha256 of a file, compared with what is known of it."""
    found, name = hash_of(path, "sha256"), file.filename
    expected, by = file.known, "its publisher or its users say"
    earlier = known.get("files", {}).get(name, {}).get("sha256")
    if expected is None and earlier is not None and not file.changing:
        expected, by = ("sha256", earlier), f"{record} says"
    if expected is None:
        log.info("%s: sha256 %s (noted; the next download is compared with it)", name, found)
        return found
    kind, value = expected
    there = found if kind == "sha256" else hash_of(path, kind)
    if there == value:
        return found
    fetched = "://" in given
    if fetched:
        remove(path)
    raise UserError(
        f"{name}: its {kind} is {there}, not {value} as {by}; "
        + ("it was removed; try again, or use another source" if fetched else "give another file")
        + (f". If it has a new version, remove {record}" if by.endswith(f"{record} says") else "")
    )


def hash_of(path: Path, kind: str) -> str:
    """The hash of a file: ``sha256`` or ``md5``, in hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, kind).hexdigest()


def _unpack(
    name: str,
    found: PublicSet,
    paths: list[Path],
    root: Path,
    record: Path,
    sources: dict[str, str],
    hashes: dict[str, str],
) -> None:
    """Makes the set's folder, and its record."""
    unpacking = root / f".{name}.unpacking"
    remove(unpacking)  # of a download that was killed
    try:
        for file, path in zip(found.files, paths, strict=True):
            into = unpacking / file.into
            into.mkdir(parents=True, exist_ok=True)
            if file.filename.lower().endswith(ARCHIVES) or opener(path) is not None:
                log.info("unpacking %s", file.filename)
                unpack(path, into, file.filename)
            else:
                shutil.copyfile(path, into / file.filename)
        if found.convert:
            CONVERSIONS[found.convert](unpacking)
        if found.sheet is not None:
            write_sheet(unpacking, found.sheet)
        files = {n: {"sha256": hashes[n], "source": sources[n]} for n in hashes}
        about = {"licence": found.licence, "cite": found.cite, "page": found.page}
        write_json(record, {"name": name, "files": files, "unpacked": _count(unpacking), **about})
        unpacking.replace(folder_of(name, root))
    finally:
        remove(unpacking)


def _checked(found: PublicSet, folder: Path, record: Path, known: dict[str, Any]) -> dict[str, str]:
    """The hashes of the files that a folder was made from, if it is the set's."""
    if not known:
        raise UserError(
            f"{folder}: exists, but no {record.name} beside it says that it was downloaded; move "
            "it away, or choose another folder"
        )
    hashes = {name: str(file["sha256"]) for name, file in known["files"].items()}
    for file in found.files:
        if file.sha256 and hashes.get(file.filename) != file.sha256:
            raise UserError(
                f"{folder}: made from another {file.filename} than the one with sha256 "
                f"{file.sha256}; remove the folder and {record.name} to download it again"
            )
    there, then = _count(folder), known["unpacked"]
    if there != then:
        log.warning(
            "warning: %s: has %s, %s more or fewer than were unpacked; remove the folder to "
            "download it again", folder, how_many(there, "file"), abs(there - then),
        )  # fmt: skip
    return hashes


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def first_channel(folder: Path) -> None:
    """BBBC039: masks/*.png [Y X C] in colours become labels/*.tif [Y X], uint16: connected pieces
    of one value in the first channel are objects."""
    import numpy as np
    import tifffile
    from imagecodecs import png_decode
    from skimage.measure import label

    (folder / "labels").mkdir()
    for path in sorted((folder / "masks").glob("*.png")):
        mask = np.atleast_3d(png_decode(path.read_bytes()))[..., 0]
        pieces = label(mask).astype(np.uint16)  # type: ignore[no-untyped-call]
        target = folder / "labels" / f"{path.stem}.tif"
        tifffile.imwrite(target, pieces, compression="zlib", metadata={"axes": "YX"})


# Name in the table -> what it does to the unpacked folder.
CONVERSIONS: dict[str, Callable[[Path], None]] = {"first_channel": first_channel}
