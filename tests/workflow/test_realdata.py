"""The stages on real microscopy images, as a user would run them.

`UNET_REAL_DATA` is a folder that contains isbi2012_em, dsb2018_fluo, t98g_phase and others, each
with `images` and `labels` (config/examples describes them).
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

# Without the variable: a path that is never a folder.
DATA = Path(os.environ.get("UNET_REAL_DATA") or os.devnull)
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="UNET_REAL_DATA names no folder of real images"),
]

# folder, options of the dataset, images expected, shape [C, Y, X] of the first, pixel size in um
SETS = [
    ("isbi2012_em", {"task": "semantic", "classes": {"membrane": 0, "cell": 255}}, 24,
     [1, 512, 512], None),
    ("dsb2018_fluo", {"task": "instances"}, 120, [1, 256, 256], None),
    ("dsb2018_rgb", {"task": "instances"}, 20, [3, 256, 320], None),
    ("t98g_phase", {"task": "instances", "pixel_size_um": 0.871}, 20, [1, 1022, 1024],
     [0.871, 0.871]),
    ("plant_em_chloroplast", {"task": "instances"}, 3, [1, 2341, 3293], None),
    ("bbbc007_sparse", {"task": "instances", "ignore": 0}, 6, [1, 340, 340], None),
    ("stardist_examples", {"task": "instances"}, 2, [1, 256, 256], None),
    ("stardist_examples_3d", {"task": "instances", "axes": "ZYX"}, 1, [1, 31, 61, 57], None),
    ("plant_ovule_nuclei_3d",
     {"task": "instances", "axes": "ZYX", "pixel_size_um": [0.284, 0.127, 0.127]}, 1,
     [1, 100, 100, 100], [0.284, 0.127, 0.127]),
]  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def config_file(folder: Path, **sections: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump({"output": str(folder / "results"), **sections}, sort_keys=False)
    )
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize(("name", "options", "number", "shape", "pixel"), SETS)
def test_manifest_reads_every_file(
    tmp_path: Path,
    name: str,
    options: dict[str, object],
    number: int,
    shape: list[int],
    pixel: list[float] | None,
) -> None:
    data = {"images": "images", "labels": "labels", "split": {"test": 0.3, "val": 0.3}, **options}
    config = config_file(
        tmp_path,
        data_root=str(DATA / name),
        datasets={name: data},
        models={"m": {"preset": "unet-bn", "width": 4}},
    )
    done = run(
        "scripts/manifest.py", "--config", str(config), "--output", str(tmp_path / "results"),
        "--dataset", name, "--root", str(DATA / name), "--images", "images", "--labels", "labels",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "results" / name / "manifest.csv")
    assert [r["reason"] for r in rows if r["status"] != "ok"] == []
    assert len(rows) == number
    assert yaml.safe_load(rows[0]["shape"]) == shape
    assert (yaml.safe_load(rows[0]["pixel_size_um"]) or None) == pixel


def snakemake(folder: Path, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # Each run has its own working folder, because they may run at the same time.
    folder_of = ("--directory", str(folder))
    done = run("-m", "snakemake", "--cores", "2", *folder_of, "--configfile", str(config), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_from_images_to_report_and_a_changed_threshold(tmp_path: Path) -> None:
    def configured(threshold: float) -> Path:
        return config_file(
            tmp_path,
            data_root=str(DATA / "dsb2018_fluo"),
            datasets={
                "nuclei": {
                    "images": "images/256x256_*.tif",
                    "labels": "labels/256x256_*.tif",
                    "task": "instances",
                    "split": {"folds": 5, "run": [0], "val": 0.2},
                }
            },
            models={
                "small": {
                    "preset": "unet-bn", "width": 8, "depth": 3, "head": "border",
                    "stitch": {"method": "grow", "grow_px": 4},
                }
            },
            train={
                "patch": 128, "batch": 8, "epochs": 4, "steps_per_epoch": 40, "ema": 0.97,
                "lr": 3.0e-3,
            },
            stitch={"threshold": threshold},
        )  # fmt: skip

    snakemake(tmp_path, configured(0.5))
    results = tmp_path / "results"
    scores = {(r["class"], r["metric"]): float(r["mean"] or "nan")
              for r in rows_of(results / "nuclei" / "report.csv")}  # fmt: skip
    assert scores["foreground", "iou"] > 0.7
    assert scores["instances", "ap_0.50"] > 0.5
    images = {r["image"] for r in rows_of(results / "nuclei" / "small" / "metrics.csv")}
    splits = rows_of(results / "nuclei" / "splits.csv")
    assert images == {r["image"] for r in splits if r["fold"] == "0" and r["part"] == "test"}
    assert len(images) == 12
    objects = rows_of(results / "nuclei" / "small" / "fold-0" / "objects.csv")
    assert len(objects) > 50

    again = snakemake(tmp_path, configured(0.5), "-n")
    assert "Nothing to be done" in again.stdout + again.stderr
    edited = snakemake(tmp_path, configured(0.6), "-n")
    wanted = set(re.findall(r"^(\w+) +\d+$", edited.stdout + edited.stderr, re.MULTILINE))
    assert wanted - {"total"} == {
        "stitch", "evaluate", "details", "audit", "report_dataset", "report", "all",
    }  # fmt: skip


def test_a_published_stack_as_it_is(tmp_path: Path) -> None:
    """Pages of one multi-page file, with a dozen training steps: all stages accept it."""
    config = config_file(
        tmp_path,
        data_root=str(DATA / "isbi2012_em" / "stacks"),
        datasets={
            "em": {
                "images": "train-volume.tif", "labels": "train-labels.tif", "layout": "stack",
                "task": "semantic", "classes": {"membrane": 0, "cell": 255},
                "split": {"test": 0.1, "val": 0.1},
                "evaluate": {"metrics": ["pixel", "topology"], "topology_class": "cell"},
            }
        },
        models={"paper": {"preset": "unet2015", "width": 4, "depth": 3}},
        train={"patch": 188, "batch": 2, "epochs": 1, "steps_per_epoch": 12, "loss": "border-ce"},
    )  # fmt: skip
    snakemake(tmp_path, config)
    metrics = rows_of(tmp_path / "results" / "em" / "paper" / "metrics.csv")
    assert {"pixel_error", "v_rand", "v_info"} <= {r["metric"] for r in metrics}
    assert len({r["image"] for r in metrics}) == 2
    assert all(0 <= float(r["value"]) <= 1 for r in metrics if r["metric"] == "v_rand")


def test_a_volume_cut_into_blocks(tmp_path: Path) -> None:
    """Nuclei in a confocal stack: a short training of a narrow network finds them."""
    done = run(
        "benchmarks/volumes.py", str(DATA / "plant_ovule_nuclei_3d"), str(tmp_path / "blocks"),
        "--size", "0.284", "0.127", "0.127",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = config_file(
        tmp_path,
        data_root=str(tmp_path / "blocks"),
        datasets={
            "n": {
                "images": "images", "labels": "labels", "task": "instances",
                "split": {"folds": 4, "run": [0], "val": 0.3},
                # Blocks of one stack share its scale; one has a bright speck.
                "prepare": {"normalize": {"scope": "dataset"}},
            }
        },
        models={
            "m": {
                "preset": "unet-res", "dims": 3, "width": 6, "depth": 2, "head": "distance",
                "stitch": {"method": "watershed", "min_size": 100},
            }
        },
        train={
            "patch": [20, 48, 48], "batch": 2, "epochs": 1, "steps_per_epoch": 80, "lr": 5.0e-3,
            "warmup_steps": 5,
            "ema": 0.9, "precision": "float32", "augment": {"geometric_probability": 0},
        },
        predict={"precision": "float32"},
    )  # fmt: skip
    snakemake(tmp_path, config)
    results = tmp_path / "results" / "n"
    scores = {(r["class"], r["metric"]): float(r["mean"] or "nan")
              for r in rows_of(results / "report.csv")}  # fmt: skip
    assert scores["foreground", "iou"] > 0.4
    (objects, *_) = rows_of(results / "m" / "fold-0" / "objects.csv")
    assert float(objects["volume_um3"]) > 100 * 0.284 * 0.127**2 * 0.99
    assert "the one with the most foreground" in (results / "report.html").read_text()
