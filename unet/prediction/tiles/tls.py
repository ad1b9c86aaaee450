"""Who may talk to a cluster: a dask scheduler runs what it is sent, and knows of no passwords.

The clusters that we start have keys of their own, made for each run: scheduler, workers and job
show one another the same certificate, and what they say is encrypted (TLS).
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

# The pages that a scheduler or worker serves are for all who reach them: none are wanted.
NO_PAGES: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def own_keys() -> Any:
    """A ``distributed.Security`` with a new key and certificate, in memory alone.

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
    """The same with what workers need in files that only this user can read, for jobs of a queue;
    they are removed at the end. Those of a run that was killed open nothing any more."""
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
    """Warns of a scheduler that others can use: neither on this machine alone nor by TLS."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme in ("tls", "wss", "inproc") or _is_loopback(parts.hostname or ""):
        return
    log.warning(
        "predict.cluster.address: %s is neither encrypted nor authenticated, so whoever reaches it "
        "can run programs as its workers' user; start the scheduler with TLS and write tls://",
        address,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
