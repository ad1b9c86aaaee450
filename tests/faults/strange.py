"""A run of the workflow on a folder in which every name could break something."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]

# The name says what happens if a shell, template or format string sees it. No glob characters.
FOLDER = "-$(touch executed1); touch executed2 & 'a\" `touch executed3` {dataset} {params.x} %s é"
SCRIPT = "<script>alert(1)</script>"
MATHS = "$x^{$ [/red] {y} %s & <b>"
NAMES = {
    "spaces": "with  two spaces .tif",
    "unicode": "Zellkörper 细胞 🔬 é.tif",
    "leading dashes": "--help -n.tif",
    "shell": "$(touch executed4);touch executed5`touch executed6`.tif",
    "quotes": 'it\'s "quoted".tif',
    "html": "<script>alert(2)<img src=x onerror=alert(3)>.tif",
    "braces": "{dataset} {wildcards.x} {0} %(a)s.tif",
    "very long": "l" * 239 + ".tif",
    "also very long": "l" * 238 + "k.tif",
    "option": "-o=x.tif",
    "dots": "a...b..tif.tif",
    "symbolic link": "linked.tif",
}
# Set aside, each with its reason.
BAD = {
    "<i>constant.tif": "all pixels have the value 65535",
    "<u onload=alert(4)>nan.tif": "NaN or infinite pixels",
    "loop.tif": "no such file",
    "to nowhere.tif": "no such file",
}
CONFIG: dict[str, Any] = {
    "output": "out $(touch executed7) é",
    "device": "cpu",
    "datasets": {
        "d": {
            "images": f"{FOLDER}/images/*.tif", "labels": f"{FOLDER}/labels/*.tif",
            "classes": {SCRIPT: 0, MATHS: 255},
            "split": {"test": 0.34, "val": 0.34},
            "evaluate": {"metrics": ["pixel", "boundary", "calibration"]},
        }
    },
    "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 1, "train": {"patch": 32}}},
    "prepare": {"tile": 64},
    "train": {"batch": 2, "epochs": 2, "steps_per_epoch": 3, "warmup_steps": 1, "lr": 0.01},
    "predict": {"tile": 64},
    "report": {"bootstrap": 100},
}  # fmt: skip


@dataclass(frozen=True)
class Strange:
    """The folder of the run, which is its working folder, too, and how it ended."""

    folder: Path
    code: int
    said: str
    before: dict[str, tuple[int, int]]

    @property
    def output(self) -> Path:
        return self.folder / CONFIG["output"]

    @property
    def raw(self) -> Path:
        return self.folder / FOLDER


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each entry below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def write_inputs(raw: Path) -> None:
    dice = np.random.default_rng(0)
    images, labels = raw / "images", raw / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    (raw / "elsewhere").mkdir()
    for number, name in enumerate([*NAMES.values(), *list(BAD)[:2]]):
        label = np.zeros((64, 64), np.uint8)
        label[10 + number : 30 + number, 8:40] = 255
        image = (label * 100.0 + dice.normal(9000, 3000, label.shape)).clip(0, 65535)
        image = image.astype(np.uint16)
        if name == "<i>constant.tif":
            image[...] = 65535
        elif "nan" in name:
            image = image.astype(np.float32)
            image[5, 5] = np.nan
        where = images / name
        if name == "linked.tif":
            where = raw / "elsewhere" / "the file.tif"
            (images / name).symlink_to(where)
        tifffile.imwrite(where, image, photometric="minisblack")
        tifffile.imwrite(labels / name, label, photometric="minisblack")
    (images / "loop.tif").symlink_to("loop.tif")
    (images / "to nowhere.tif").symlink_to("nowhere/at all.tif")
    for name in list(BAD)[2:]:
        tifffile.imwrite(labels / name, label, photometric="minisblack")
    for path in sorted(raw.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    raw.chmod(0o555)


def snakemake(
    folder: Path, config: dict[str, Any], *words: str
) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return subprocess.run(
        [*SNAKEMAKE, "--directory", str(folder), "--configfile", str(folder / "config.yaml"),
         *words],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


_KEPT: list[Any] = []


@functools.cache
def strange_run() -> Strange:
    """The run, which all tests that check it share."""
    # Not in pytest's folder: it is removed with this process, including the read-only inputs.
    place = tempfile.TemporaryDirectory(prefix="unet strange $(touch executed8) ")
    _KEPT.append(place)
    folder = Path(place.name)
    write_inputs(folder / FOLDER)
    before = stamps(folder / FOLDER)
    done = snakemake(folder, CONFIG, "--cores", "2", "--quiet", "rules")
    return Strange(folder, done.returncode, done.stdout + done.stderr, before)
