"""Compares the records in the outputs of a run with Snakemake's own records."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from unet.files import canonical
from unet.planning import stale


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Output -> Snakemake's record for it."""
    found, root = {}, folder / ".snakemake" / "metadata"
    for path in root.rglob("*"):
        if path.is_file():
            # A long name is split into several folders that start with an @.
            coded = "".join(path.relative_to(root).parts).replace("@", "")
            name = base64.urlsafe_b64decode(coded).decode()
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def check_made_by(folder: Path, output: str = "out") -> set[str]:
    """Compares each job's settings and inputs with Snakemake's record.

    Returns:
        the rules whose jobs were checked.
    """
    found = records(folder)
    jobs: dict[tuple[str, ...], list[str]] = {}
    for name, record in sorted(found.items()):
        jobs.setdefault((record["rule"], *record["log"]), []).append(name)
    for outputs in jobs.values():
        made, record = stale.record_of(str(folder / name) for name in outputs), found[outputs[0]]
        assert made is not None, outputs
        assert {f"{output}/{name}" for name in made["inputs"]} == set(record["input"]), outputs
        assert repr(canonical(made["settings"])) in record["params"], outputs
        assert str(folder) not in json.dumps(made)
    return {rule for rule, *_ in jobs}
