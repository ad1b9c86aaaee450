"""Systems without the modules and signals of Linux: nothing fails at import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Libraries are imported first: only this package is tested.
CODE = """
import importlib, os, pkgutil, signal, sys
import torch, dask, zarr, pandas, skimage, tifffile, matplotlib, psutil, rich, snakemake.cli
import scipy.ndimage, scipy.sparse, scipy.optimize, pydantic, roifile, imagecodecs
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, name in ((os, "getuid"), (os, "uname"), (os, "sched_getaffinity"), (os, "killpg"),
                     (os, "O_CLOEXEC"), (os, "O_NONBLOCK"), (signal, "SIGUSR1"),
                     (signal, "SIGHUP"), (signal, "SIGKILL")):
    if hasattr(module, name):
        delattr(module, name)
sys.platform = sys.argv[1]
import unet
failed = []
for found in pkgutil.walk_packages(unet.__path__, "unet."):
    if found.name == "unet.__main__":
        continue
    try:
        importlib.import_module(found.name)
    except Exception as error:
        failed.append(f"{found.name}: {type(error).__name__}: {error}")
print(*failed, sep=chr(10))
from pathlib import Path
from unet.files import locked, read_regular
with locked(Path(sys.argv[2], "lock"), "testing here"):
    pass
Path(sys.argv[2], "a.txt").write_text("x")
assert read_regular(Path(sys.argv[2], "a.txt"), 10) == "x"
sys.exit(len(failed))
"""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_all_modules_are_imported(platform: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, platform, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
