"""Fetches a file over HTTP. An interrupted download continues; a file that is not whole never has
its final name.

The proxies in ``http_proxy``, ``https_proxy`` and ``no_proxy`` are used.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from unet import __version__
from unet.errors import UserError, one_line
from unet.files import remove, write_json

log = logging.getLogger(__name__)

# Seconds without any data after which the connection counts as broken.
TIMEOUT = 60.0
_BLOCK = 1 << 20
_SAY_EVERY = 10.0


def fetch(url: str, target: Path, remedy: str) -> None:
    """Writes the file at an address to ``target``.

    What has arrived lies in ``.<name>.part`` beside it, also after an interruption. The next call
    continues there if the server says that its file is still the same, and begins again if not.

    Args:
        url: http:// or https://.
        remedy: what the user can do if it cannot be fetched, for the error message.

    Raises:
        UserError: no connection, an answer other than success, a file that ends early, a full disk.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: not an address that can be fetched; write http:// or https://")
    part = target.with_name(f".{target.name}.part")
    note = part.with_name(f"{part.name}.json")
    try:
        try:
            _fetch(url, part, note)
        except HTTPError as error:
            if error.code != 416:
                raise
            # The server has no more than what is here: the file has changed there.
            remove(part)
            _fetch(url, part, note)
    except HTTPError as error:
        answer = f"{error.code} {one_line(error.reason)}"
        raise UserError(f"{url}: the server answered {answer}; {remedy}") from None
    except URLError as error:
        why = one_line(getattr(error.reason, "strerror", None) or error.reason)
        raise UserError(f"{url}: no connection ({why}); {remedy}") from None
    except (ConnectionError, HTTPException, TimeoutError) as error:
        there = part.stat().st_size / 1e6 if part.is_file() else 0.0
        raise UserError(
            f"{url}: the connection broke after {there:.1f} MB ({one_line(error)}); run it again "
            "to continue"
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"{target.parent}: no space left; free some and run it again to continue"
        ) from None
    part.replace(target)
    remove(note)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuses what cannot fit on the disk.

    Args:
        needed: in bytes.
        what: what needs the space, for the error message, such as "a.zip unpacks to".

    Raises:
        UserError: less is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} {needed / 1e9:.2f} GB, but {folder} has only {free / 1e9:.2f} GB free; free "
            "some, or choose another folder"
        )


def _fetch(url: str, part: Path, note: Path) -> None:
    begun = part.stat().st_size if part.is_file() else 0
    mark = _mark_of(url, note) if begun else ""
    # Without identity, some servers compress what is compressed already, and ranges differ.
    headers = {"User-Agent": f"unet-pipeline/{__version__}", "Accept-Encoding": "identity"}
    if mark:
        headers |= {"Range": f"bytes={begun}-", "If-Range": mark}
    # Not urlopen, which remembers the proxies of its first call.
    with build_opener().open(Request(url, headers=headers), timeout=TIMEOUT) as answer:
        continues = answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        if answer.status == 206 and not continues:
            remove(part)
            raise ConnectionError("the server sent another part than was asked for")
        begun = begun if answer.status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = begun + int(length) if length.isdecimal() else None
        if total is not None:
            check_space(part.parent, total - begun, f"{url} has")
        write_json(note, {"url": url, "mark": _mark(answer)})
        if begun:
            log.info("%s: continues after %.1f MB", url, begun / 1e6)
        _write(answer, part, begun, total)
    size = part.stat().st_size
    if total is not None and size != total:
        raise ConnectionError(f"{total / 1e6:.1f} MB were announced")


def _write(answer: HTTPResponse, part: Path, begun: int, total: int | None) -> None:
    said, there = time.monotonic(), begun
    with part.open("ab" if begun else "wb") as handle:
        while block := answer.read(_BLOCK):
            handle.write(block)
            there += len(block)
            if time.monotonic() - said > _SAY_EVERY:
                said = time.monotonic()
                of = "" if total is None else f" of {total / 1e6:.0f}"
                log.info("  %.0f%s MB", there / 1e6, of)


def _mark(answer: HTTPResponse) -> str:
    """What tells this version of the file from others; "" if the server does not say."""
    tag = answer.headers.get("ETag", "")
    # A weak tag may stand for several files with the same meaning.
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _mark_of(url: str, note: Path) -> str:
    """The mark of what has arrived; "" if it is not known, or of another address."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(found.get("mark", "")) if found.get("url") == url else ""
