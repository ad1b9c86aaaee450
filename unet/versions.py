"""The version of each stage's results, and of the libraries. Torch-free.

A stage's version is one of its params in the workflow: raise it when a change of the code changes
what the stage writes, and everything from that stage on is recomputed at the next run; leave it
when results stay the same. ``tests/project/test_versions.py`` holds a hash of the code behind each
stage, so that whoever edits it decides knowingly (``make stage-hashes`` writes the new hashes).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

STAGES: dict[str, int] = {
    "synthesize": 1,
    "download": 1,
    "manifest": 2,
    "splits": 1,
    "check": 1,
    "prepare": 1,
    "join": 1,
    "prepare_applied": 1,
    "train": 2,
    "choose": 1,
    "predict": 3,
    "stitch": 2,
    "evaluate": 3,
    "details": 1,
    "compare": 1,
    "audit": 2,
    "quality": 2,
    "report": 5,
    "export": 1,
}

_LIBRARIES = ("torch", "numpy", "zarr", "dask", "scikit-image", "scipy", "tifffile", "snakemake")


def library_versions() -> dict[str, str]:
    """Installed version of each library that results depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages, by their names of import, that are not installed; none is imported,
    apart from those that contain them."""
    found = []
    for name in packages:
        try:
            there = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # a package above it
            there = False
        if not there:
            found.append(name)
    return found
