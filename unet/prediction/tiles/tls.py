"""Protects clusters with TLS: a dask scheduler runs all code that it is sent, without passwords.

Each cluster that we start gets its own new keys: scheduler, workers and job identify themselves
with the same certificate, and their connections are encrypted.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from unet.errors import UserError
from unet.files import remove

log = logging.getLogger(__name__)

# No web pages: those of a scheduler or worker are open to everyone who can reach them.
NO_PAGES: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def own_keys() -> Any:
    """A ``distributed.Security`` with a new key and certificate, only in memory.

    Raises:
        UserError: cryptography is not installed.
    """
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError:
        raise UserError(
            "predict.cluster: needs the package cryptography; run "
            "pip install 'unet-pipeline[cluster]'"
        ) from None


@contextmanager
def on_disk(security: Any, folder: Path) -> Iterator[Any]:
    """A copy for jobs of a queue, with keys and certificate in files that only this user can read.
    The files are removed at the end. Those of a run that was killed give no access any more."""
    remove(folder)
    folder.mkdir(mode=0o700, parents=True)
    stored = copy(security)
    try:
        for field in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
            path = folder.resolve() / f"{field}.pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(getattr(security, field))
            setattr(stored, field, str(path))
        yield stored
    finally:
        remove(folder)


def warn_if_open(address: str) -> None:
    """Warns if others can use the scheduler: it has no TLS and is not only on this machine."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme in ("tls", "wss", "inproc") or _is_loopback(parts.hostname or ""):
        return
    log.warning(
        "predict.cluster.address: %s is neither encrypted nor authenticated, so anyone who reaches "
        "it can run programs as its workers' user; start the scheduler with TLS and write tls://",
        address,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
