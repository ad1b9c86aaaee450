"""Peak memory of predict, stitch and evaluate against the size of the image.

    python benchmarks/memory.py                       # 4,096, 16,384 and 32,768 pixels a side
    python benchmarks/memory.py --sides 2048 4096     # smaller, in a minute

Images and labels are generated chunk by chunk in a prepared store. A narrow network, trained for
some seconds, predicts them, so that the benchmark takes minutes. Each stage runs its command line
in a separate process, as in the workflow, and its peak is the system's figure for this process.
Writes benchmarks/results/memory.json. 32,768 pixels need about 15 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import yaml

from benchmarks.machine import load, machine, usable_cores, versions
from unet.config.load import load_file
from unet.config.stage_settings import SETTINGS
from unet.data.records import SplitRecord, write_splits
from unet.data.store import add_image, add_labels, clean, layout_of, new_image
from unet.files import remove, write_sentinel
from unet.paths import Paths

RESULT = ROOT / "benchmarks" / "results" / "memory.json"
STAGES = ("predict", "stitch", "evaluate")
# A small process in between, because the peak of a child is at least the size of its parent.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
# Side of the repeated pattern: one shard of the store.
PATTERN = 2048
CELL = 64
# Largest window. Windows are made as small as their number allows; with this limit, their sizes in
# the three images differ by at most 8 px.
TILE = 868


def pattern() -> tuple[Any, Any]:
    """An image [1, Y, X] float32 of discs on noise, and the disc of each pixel [Y, X]."""
    rng = np.random.default_rng(0)
    count = PATTERN // CELL
    y, x = np.mgrid[:PATTERN, :PATTERN]
    row, column = y // CELL, x // CELL
    radius = rng.uniform(12, 28, (count, count))[row, column]
    inside = np.hypot(y % CELL - CELL / 2, x % CELL - CELL / 2) < radius
    image = inside * 4.0 - 2.0 + rng.normal(0, 0.3, inside.shape)
    ids = np.where(inside, row * count + column + 1, 0)
    return image[None].astype(np.float32), ids.astype(np.uint32)


def generate(paths: Paths, side: int) -> None:
    """Writes a prepared store with one image, part by part."""
    image, ids = pattern()
    store = paths.prepared("d")
    clean(store, {})
    where = layout_of((side, side), tile=512, shard=4)
    attrs: dict[str, Any] = {
        "key": f"{side}", "axes": "CYX", "pixel_size_um": None, "statistics": {},
        "channels": [""], "group": "", "display": None,
    }  # fmt: skip
    with new_image(store, "image") as group:
        arrays = (
            add_image(group, 1, (side, side), where),
            add_labels(group, "classes", "uint8", (side, side), where),
            add_labels(group, "instances", "uint32", (side, side), where),
        )
        per_part = int(ids.max())
        for number, (a, b) in enumerate(np.ndindex(*(-(-side // PATTERN),) * 2)):
            rows, columns = (slice(i * PATTERN, min((i + 1) * PATTERN, side)) for i in (a, b))
            part = (slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start))
            arrays[0][(slice(None), rows, columns)] = image[(slice(None), *part)]
            arrays[1][(rows, columns)] = (ids[part] > 0).astype(np.uint8)
            arrays[2][(rows, columns)] = np.where(ids[part] > 0, ids[part] + number * per_part, 0)
        group.attrs.update(attrs)
    entry: dict[str, Any] = {
        "key": f"{side}", "shape": [1, side, side], "axes": "CYX", "pixel_size_um": None,
        "labelled": True, "group": "", "statistics": {},
    }  # fmt: skip
    write_sentinel(
        paths.prepared_done("d"), 1, {"image": entry}, task="instances",
        class_names=["background", "foreground"], class_values=None, normalize={}, channels=1,
    )  # fmt: skip
    write_splits(paths.splits("d"), [SplitRecord(image="image", fold=0, part="test")])


def model(paths: Paths, width: int, depth: int, settings: dict[str, Any], steps: int = 60) -> None:
    """Trains a network of this width on the pattern for some seconds; ``settings`` are those of a
    training by the config, since the stages compare them."""
    import torch
    import torch.nn.functional as F

    from unet.config.presets import architecture_of
    from unet.models.build import build
    from unet.models.model_file import ModelFile, save_model

    arch = architecture_of("unet-bn", width=width, depth=depth)
    network = build(1, 2, arch, 0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    image, ids = pattern()
    rng = np.random.default_rng(0)
    for _ in range(steps):
        y, x = rng.integers(0, PATTERN - 128, 2)
        part = (slice(y, y + 128), slice(x, x + 128))
        target = torch.from_numpy((ids[part] > 0).astype(np.int64))[None]
        loss = F.cross_entropy(network(torch.from_numpy(image[(slice(None), *part)])[None]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = paths.model("d", "m", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        path,
        ModelFile(
            architecture=arch, in_channels=1, head=("background", "foreground"),
            class_names=("background", "foreground"), class_values=None, task="instances",
            normalize={}, pixel_size_um=None, settings=settings, versions={}, score=0.0, step=steps,
            weights=network.eval().state_dict(),
        ),
    )  # fmt: skip


def run_stage(stage: str, config: Path, paths: Paths, threads: int) -> dict[str, float]:
    """Seconds and peak resident memory in MB of a stage in its own process."""
    fold = ("--folds", "0") if stage == "evaluate" else ("--fold", "0")
    command = [
        sys.executable, str(ROOT / "scripts" / f"{stage}.py"), "--output", str(paths.output),
        "--dataset", "d", "--model", "m", *fold, "--config", str(config),
        "--threads", str(threads),
    ]  # fmt: skip
    if stage == "predict":
        command += ["--memory-gb", str(load_file(config).memory_gb)]
    started = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command], env=env, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr[-2000:]}")
    return {"seconds": time.monotonic() - started, "peak MB": int(done.stdout.split()[-1]) / 1e3}


def measure(side: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Runs all stages on an image of this side."""
    output = args.work / f"side-{side}"
    remove(output)
    paths = Paths(output)
    config = output / "config-in.yaml"
    output.mkdir(parents=True)
    config.write_text(
        yaml.safe_dump(
            {
                "output": str(output),
                "memory_gb": args.memory_gb,
                "datasets": {"d": {"images": "x", "labels": "x", "task": "instances"}},
                "models": {"m": {"preset": "unet-bn", "width": args.width, "depth": args.depth}},
                "predict": {"tile": TILE},
                "stitch": {"tiff": True, "threshold": 0.5},
            }
        )
    )
    generate(paths, side)
    settings = SETTINGS["train"].of(load_file(config), "d", "m").to_json()
    model(paths, args.width, args.depth, settings)
    found = {}
    for stage in STAGES:
        found[stage] = run_stage(stage, config, paths, args.threads)
        print(
            f"{side} px  {stage}: {found[stage]['peak MB']:.0f} MB, "
            f"{found[stage]['seconds']:.0f} s",
            flush=True,
        )
    objects = json.loads(paths.segmentation_done("d", "m", 0).read_text())
    found["objects"] = {"count": float(objects["images"]["image"]["objects"])}
    if not args.keep:
        remove(output)
    return found


def table(rows: dict[int, dict[str, dict[str, float]]]) -> str:
    """The result as Markdown."""
    lines = [
        "| side of the image, px | Mpx | objects | " + " | ".join(f"{s}, MB" for s in STAGES)
        + " | " + " | ".join(f"{s}, s" for s in STAGES) + " |",
        "|" + "---|" * (3 + 2 * len(STAGES)),
    ]  # fmt: skip
    for side, row in rows.items():
        peaks = [f"{row[stage]['peak MB']:.0f}" for stage in STAGES]
        seconds = [f"{row[stage]['seconds']:.0f}" for stage in STAGES]
        cells = [f"{side}", f"{side**2 / 1e6:.0f}", f"{row['objects']['count']:.0f}"]
        lines.append("| " + " | ".join([*cells, *peaks, *seconds]) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--sides", type=int, nargs="+", default=[4096, 16384, 32768])
    p.add_argument("--width", type=int, default=4)
    p.add_argument("--depth", type=int, default=2)
    p.add_argument("--memory-gb", type=float, default=1.0, help="the config's key memory_gb")
    p.add_argument("--threads", type=int, default=usable_cores())
    p.add_argument("--work", type=Path, default=Path("results-memory"))
    p.add_argument("--keep", action="store_true", help="do not remove what was made")
    p.add_argument("--out", type=Path, default=RESULT)
    args = p.parse_args(argv)
    args.work = args.work.resolve()
    before = load()
    rows = {side: measure(side, args) for side in args.sides}
    small, large = rows[args.sides[0]], rows[args.sides[-1]]
    ratios = {s: large[s]["peak MB"] / small[s]["peak MB"] for s in STAGES}
    value = {
        "machine": {**machine(), "load before": before, "load after": load()},
        "versions": versions("torch", "zarr", "numpy", "scipy"),
        "settings": {
            **{k: getattr(args, k) for k in ("width", "depth", "memory_gb", "threads")},
            "tile": TILE,
        },
        "sides": {str(side): row for side, row in rows.items()},
        "largest over smallest": ratios,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(value, indent=1) + "\n")
    print("\n" + table(rows) + "\n")
    for stage, ratio in ratios.items():
        print(f"{stage}: peak of the largest over that of the smallest {ratio:.2f}")
    print(f"\nwrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
