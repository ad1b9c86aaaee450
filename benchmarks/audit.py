"""Plants mistakes in labels, trains on them, and measures how many the audit finds.

    python benchmarks/audit.py nuclei phase membranes dsb2018=DATA/dsb2018_fluo \\
        isbi2012=DATA/isbi2012_em:semantic --device cpu
    python benchmarks/audit.py nuclei --images 8 --size 128 --folds 2 --epochs 1 --steps 5 --seeds 1

A set is generated (nuclei, phase, membranes) or a folder with images/ and labels/; write :semantic
behind a folder of class maps. With a fixed seed, 5 % of the objects each are dropped, added, merged
and shifted by 3 px, and the labels of two images exchanged; in class maps, places are. A small
model is trained on the wrong labels in folds, and audits them. k is the number of planted mistakes.
Counted are those among the first k doubts and the first 2 k; beside it a random order of all
objects and, for class maps, cleanlab (pip install cleanlab; not needed by the pipeline). Once an
exchanged label is found, more doubts about its image are skipped, for the audit and for cleanlab.

The goal is that 80 % of the dropped, added and exchanged ones are among the first 2 k. A doubt that
is not about a planted mistake counts as false, but the labels of real sets have mistakes of their
own. The constants of the audit were chosen on generated sets with seed 0; the results are those of
other seeds, and of real sets that played no part in the choice. Written to
benchmarks/results/audit.json: all runs, and the median of the seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.found_mistakes import certainty, counted, medians, table
from benchmarks.machine import load, machine, versions
from benchmarks.planted import RADIUS, plant
from unet.config.audit_settings import AuditSettings
from unet.data.synthetic import write_dataset
from unet.evaluation.audit.audit_model import audit_model
from unet.evaluation.audit.doubts import Doubt
from unet.files import replacing
from unet.paths import Paths
from unet.versions import library_versions

GENERATED = {"nuclei": "instances", "phase": "instances", "membranes": "semantic"}
DATASET, MODEL = "corrupted", "small"
PIXEL_SIZE = 0.5


def prepared_set(
    name: str, folder: Path, seed: int, args: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
    """Writes images and labels to ``folder``; returns the task and the labels by image."""
    given, _, rest = name.partition("=")
    if not rest:
        write_dataset(folder, given, seed, args.images, (args.size,) * 2, PIXEL_SIZE)
        task = GENERATED[given]
    else:
        source, _, task = rest.partition(":")
        task = task or "instances"
        for part in ("images", "labels"):
            files = sorted(path for path in (Path(source) / part).iterdir() if path.is_file())
            (folder / part).mkdir(parents=True)
            for path in _spread(files, args.most):
                shutil.copy(path, folder / part)
    files = sorted(path for path in (folder / "labels").iterdir() if path.is_file())
    return task, {path.name: _read(path) for path in files}


def _spread(files: list[Path], most: int) -> list[Path]:
    """At most ``most`` of them, evenly spaced."""
    step = max(1.0, len(files) / most)
    return [files[int(k * step)] for k in range(min(most, len(files)))]


def _read(path: Path) -> Any:
    if path.suffix.lower() in (".tif", ".tiff"):
        return tifffile.imread(path)
    from skimage.io import imread

    return imread(path)


def write_labels(folder: Path, labels: dict[str, Any]) -> None:
    for name, ids in labels.items():
        path = folder / "labels" / name
        path.unlink()
        if path.suffix.lower() in (".tif", ".tiff"):
            tifffile.imwrite(path, ids, compression="zlib")
        else:
            from skimage.io import imsave

            imsave(path, ids, check_contrast=False)


def config_of(
    task: str, labels: dict[str, Any], seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "images": "images", "labels": "labels", "task": task, "split": {"folds": args.folds},
        "pixel_size_um": PIXEL_SIZE,
    }  # fmt: skip
    if task == "semantic":
        # In the order of how common they are.
        values, counts = np.unique(
            np.concatenate([ids.ravel() for ids in labels.values()]), return_counts=True
        )
        order = values[np.argsort(-counts)].tolist()
        data["classes"] = {f"class{k}": int(value) for k, value in enumerate(order)}
    model: dict[str, Any] = {"preset": "unet-bn", "width": args.width, "depth": 3}
    if task == "instances":
        model |= {"head": "border", "stitch": {"method": "grow", "grow_px": 4}}
    return {
        "output": "results", "data_root": "data", "device": args.device,
        "seed": seed, "datasets": {DATASET: data}, "models": {MODEL: model},
        "train": {"epochs": args.epochs, "steps_per_epoch": args.steps, "patch": 128, "batch": 8,
                  "lr": 2e-3, "ema": 0.98},
    }  # fmt: skip


def predicted(
    work: Path, task: str, labels: dict[str, Any], seed: int, args: argparse.Namespace
) -> Paths:
    """Trains and predicts in the folder ``work``."""
    config = work / "config.yaml"
    config.write_text(yaml.safe_dump(config_of(task, labels, seed, args), sort_keys=False))
    paths = Paths(Path("results"))
    wanted = [str(paths.segmentation_done(DATASET, MODEL, k)) for k in range(args.folds)]
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"),
        "--directory", str(work), "--configfile", str(config), "--cores", str(args.cores),
        "--quiet", "all", "--", *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    return Paths(work / "results")


def cleanlab_doubts(paths: Paths) -> list[Doubt] | None:
    """Connected regions that cleanlab finds wrong, those with the lowest scores first; None if it
    is not installed or the images differ in shape."""
    try:
        from cleanlab.segmentation.filter import find_label_issues
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError:
        return None
    from unet.data.store import Prepared
    from unet.evaluation.audit.audited_images import audited_images
    from unet.prediction.stitch.segmentation import Segmentation

    stores = sorted(paths.fold(DATASET, MODEL, 0).parent.glob("fold-*/segmentation.zarr"))
    folds = {k: Segmentation(store) for k, store in enumerate(stores)}
    opened = [
        image.open()
        for image in audited_images(folds, Prepared(paths.prepared(DATASET)), "semantic")
    ]
    if len({pair.truth.shape for pair in opened}) != 1 or opened[0].truth.ndim != 2:
        return None
    labels = np.stack([np.asarray(pair.truth[:]).astype(np.int64) for pair in opened])
    probs = np.stack([np.asarray(pair.probabilities[:], np.float32) for pair in opened])  # type: ignore[index]
    wrong = find_label_issues(labels, probs, downsample=1, n_jobs=1, verbose=False)
    _, scores = get_label_quality_scores(labels, probs, verbose=False)
    found = []
    for pair, issues, score in zip(opened, wrong, scores, strict=True):
        regions, number = ndimage.label(issues, np.ones((3, 3)))
        for k, box in enumerate(ndimage.find_objects(regions, number), start=1):
            at = np.argwhere(regions == k)
            sure = float((1 - score[regions == k]).sum())
            low, high = (tuple(getattr(s, end) for s in box) for end in ("start", "stop"))
            middle = tuple(at.mean(axis=0).tolist())
            found.append(Doubt(pair.image, 0, "class", sure, "", middle, low, high, len(at)))
    return sorted(found, key=lambda doubt: doubt.order)


def measured(name: str, seed: int, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One set and seed from its images to the numbers."""
    task, labels = prepared_set(name, work / "data", seed, args)
    planted = plant(labels, task, seed)
    write_labels(work / "data", labels)
    start = time.monotonic()
    paths = predicted(work, task, labels, seed, args)
    seconds = time.monotonic() - start
    stems = _ids_by_file(paths)
    stores = sorted(paths.fold(DATASET, MODEL, 0).parent.glob("fold-*/segmentation.zarr"))
    # The stage's table ends after 200 doubts; here are as many as are counted.
    names = tuple(config_of(task, labels, seed, args)["datasets"][DATASET].get("classes", ("", "")))
    settings = AuditSettings.made(task=task, class_names=names, most=max(200, 2 * len(planted)))
    found = audit_model(dict(enumerate(stores)), paths.prepared(DATASET), settings)
    doubts, summary = found.doubts, found.summary()
    # A random order goes through all objects; of class maps through as many places as fit in.
    pixels = sum(ids.size for ids in labels.values())
    objects = summary["objects"] or pixels // (2 * RADIUS) ** 2
    result = {
        "seed": seed, "task": task, "images": len(labels), "seconds": round(seconds, 1),
        "planted": len(planted), "summary": summary,
        "audit": counted(doubts, planted, stems, objects),
        "certainty": certainty(doubts, planted, stems),
    }  # fmt: skip
    if task == "semantic":
        other = cleanlab_doubts(paths)
        result["cleanlab"] = other and counted(other, planted, stems, objects)
    return result


def _ids_by_file(paths: Paths) -> dict[str, str]:
    """Name of a label file -> id of its image."""
    from unet.data.records import read_manifest

    rows = read_manifest(paths.manifest(DATASET))
    return {Path(row.label).name: row.id for row in rows if row.label}


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("sets", nargs="+", help="nuclei, phase, membranes, or NAME=FOLDER[:semantic]")
    p.add_argument("--images", type=int, default=20, help="of a generated set")
    p.add_argument("--size", type=int, default=192, help="side of generated images in pixels")
    p.add_argument("--most", type=int, default=40, help="images of a folder to use")
    p.add_argument("--folds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=4)
    p.add_argument("--steps", type=int, default=50, help="per epoch")
    p.add_argument("--width", type=int, default=8, help="channels of the first level")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--cores", type=int, default=1)
    p.add_argument("--device", default="auto")
    p.add_argument("--out", default="audit", help="name of the result file")
    args = p.parse_args(argv)
    for name in args.sets:
        if "=" not in name and name not in GENERATED:
            p.error(f"{name}: write one of {', '.join(GENERATED)}, or NAME=FOLDER")
    target = ROOT / "benchmarks" / "results" / f"{args.out}.json"
    given = ("images", "size", "most", "folds", "epochs", "steps", "width", "seeds")
    value: dict[str, Any] = {
        "machine": machine(), "load": [load()],
        "versions": {**library_versions(), **versions("cleanlab")},
        "settings": {name: getattr(args, name) for name in given}, "sets": [],
    }  # fmt: skip
    for name in args.sets:
        runs = []
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                runs.append(measured(name, seed, Path(folder), args))
        found = {"set": name.partition("=")[0], "median": medians(runs), "runs": runs}
        value["sets"].append(found)
        print(table(value["sets"]), flush=True)
        # After each set, so that a run that is cut off leaves what it measured.
        value["load"] = [*value["load"][:1], load()]
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
