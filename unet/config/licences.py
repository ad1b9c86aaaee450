"""The licences that a package of the BioImage Model Zoo may have. Light: loads no library."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from unet.errors import did_you_mean


@cache
def known_licences() -> frozenset[str]:
    """SPDX identifiers in the list of the installed ``bioimageio.spec``; none if it is not there,
    since then nothing is exported here."""
    try:
        found = find_spec("bioimageio.spec")
        folder = Path((found and found.origin) or "").parent / "static"
        entries = json.loads((folder / "spdx_licenses.json").read_text(encoding="utf-8"))
        return frozenset(str(entry["licenseId"]) for entry in entries["licenses"])
    except (ImportError, OSError, ValueError, KeyError, TypeError):
        return frozenset()


def licence_mistake(licence: str) -> str:
    """What is wrong with a licence, or ""."""
    known = known_licences()
    if not known or licence in known:
        return ""
    return (
        "not a licence of https://spdx.org/licenses; write one such as MIT "
        f"(got {licence!r}){did_you_mean(licence, known)}"
    )
