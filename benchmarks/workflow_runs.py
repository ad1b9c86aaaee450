"""Runs of the workflow whose results a benchmark compares: its command line, a run per seed, the
file of the result."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import torch_machine
from unet.versions import library_versions

ROOT = Path(__file__).resolve().parent.parent
Rows = list[dict[str, Any]]
# Data, folder for the run, seed -> rows of the result.
Measure = Callable[[Path, Path, int], Rows]


def parser(text: str | None, result: Path, data: str) -> argparse.ArgumentParser:
    """The options that all have.

    Args:
        result: where the result is written by default.
        data: what the argument of the command is.
    """
    p = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("data", type=Path, nargs="?", help=data)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--work", type=Path, help="folder for the runs, to go on with them later")
    p.add_argument("--out", type=Path, default=result)
    p.add_argument("--show", action="store_true", help="print the tables of a result")
    return p


def linked(data: Path, folder: Path, place: Callable[[str, int], str | None]) -> Path:
    """A folder with links to images and labels of datasets.

    Args:
        place: a dataset and the image's number in it -> the dataset that it is put into; None: it
            is left out.
    """
    for name in sorted(each.name for each in data.iterdir() if (each / "images").is_dir()):
        for part in ("images", "labels"):
            for number, path in enumerate(sorted((data / name / part).iterdir())):
                if (to := place(name, number)) is not None:
                    (folder / to / part).mkdir(parents=True, exist_ok=True)
                    (folder / to / part / path.name).symlink_to(path.resolve())
    return folder


def run(config: Mapping[str, Any], folder: Path, wanted: Sequence[Path]) -> None:
    """Makes these files by the workflow; its config is written to ``folder``.

    Raises:
        CalledProcessError: a job failed.
    """
    file = folder / f"{Path(config['output']).name}.yaml"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"),
        "--configfile", str(file), "--directory", str(folder), "--cores", "all", "--quiet",
        "rules", "--keep-going",
    ]  # fmt: skip
    subprocess.run([*command, "--", *map(str, wanted)], check=True, cwd=ROOT)


def measured(
    p: argparse.ArgumentParser,
    args: argparse.Namespace,
    measure: Measure,
    show: Callable[[dict[str, Any]], str],
    *,
    place: Callable[[str, int], str | None],
    settings: Mapping[str, Any],
) -> int:
    """Measures each seed, writes the result and prints its tables; the exit code."""
    if args.show:
        print(show(json.loads(args.out.read_text(encoding="utf-8"))))
        return 0
    if args.data is None:
        p.error("give the folder of the datasets")
    started, rows = time.monotonic(), Rows()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data = linked(args.data.resolve(), Path(tempfile.mkdtemp(dir=temporary)), place)
        for seed in range(args.seeds):
            rows += measure(data, folder, seed)
    result = {
        "machine": torch_machine(),
        "versions": library_versions(),
        "settings": dict(settings),
        # With --work, earlier calls may have done a part.
        "seconds": None if args.work else round(time.monotonic() - started),
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show(result))
    return 0
