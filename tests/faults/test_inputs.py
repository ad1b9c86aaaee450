"""Odd images, labels, names and folders of users: each works to the end, or is refused in one line
that says what to write instead. Nothing is half-written."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.faults.strange import BAD, NAMES, stamps, strange_run
from tests.faults.tallies import Tally
from tests.faults.test_fuzz import PREPARE
from tests.workflow.test_bad_inputs import (
    ROOT,
    SETTINGS,
    Outcome,
    good,
    label,
    pixels,
    stage,
    write,
)
from unet.data.file_names import find
from unet.data.inspection import Expected, inspect
from unet.data.raw_changes import NO_FILE, stamp
from unet.data.records import read_manifest
from unet.data.store import Prepared
from unet.errors import UserError
from unet.files import canonical
from unet.paths import Paths


def made(root: Path, **settings: Any) -> Outcome:
    """Runs the stages manifest and, if that succeeds, prepare."""
    done = stage(
        "manifest", Paths(root / "out"), {**SETTINGS, **settings},
        "--root", str(root), "--images", "i", "--labels", "l",
    )  # fmt: skip
    if done.code:
        return done
    task = {"task": settings.get("task", "semantic")}
    if task["task"] == "instances":
        task["classes"] = None
    return stage("prepare", done.paths, {**PREPARE, **task})


# Odd pixels.


def nan(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    image[7, 9] = np.nan
    return image


def infinite(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    image[7, 9] = -np.inf
    return image


REFUSED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "one NaN": (nan, "NaN or infinite pixels"),
    "one infinity": (infinite, "NaN or infinite pixels"),
    "one value": (lambda image: np.full_like(image, 7), "all pixels have the value 7"),
    "zeros": (np.zeros_like, "all pixels have the value 0"),
    "all 65535": (lambda image: np.full(image.shape, 65535, np.uint16), "the value 65535"),
    "one pixel": (lambda image: image[:1, :1], "all pixels have the value"),
    "complex numbers": (lambda image: image.astype(np.complex64), "complex"),
}
TAKEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "two pixels": lambda image: image[:1, :2] // 2 + np.array([[0, 99]], np.uint8),
    "one row": lambda image: image[:1],
    "one column": lambda image: image[:, :1],
    "nearly all 65535": lambda image: np.where(image < 190, 65535, image).astype(np.uint16),
    "one bright pixel": lambda image: np.where(image == image.max(), 65535, 0).astype(np.uint16),
    "negative": lambda image: image.astype(np.int16) - 1000,
    "float64": lambda image: image.astype(np.float64) / 7,
    "hardly any contrast": lambda image: (1 + image * 1e-7).astype(np.float32),
    "large numbers": lambda image: image.astype(np.float32) * 1e30,
    "bilevel": lambda image: image > 100,
}


@pytest.mark.faults
def test_odd_pixels(tmp_path: Path, tally: Tally) -> None:
    good(tmp_path)
    image = pixels()
    for name, (change, _) in REFUSED.items():
        write(tmp_path / "i" / f"{name}.tif", change(image))
        write(tmp_path / "l" / f"{name}.tif", label(change(image).shape[:2]))
    for name, keep in TAKEN.items():
        odd = keep(image)
        marked = np.zeros(odd.shape, np.uint8)
        marked[:1, :1] = 255
        write(tmp_path / "i" / f"{name}.tif", odd)
        write(tmp_path / "l" / f"{name}.tif", marked)
    done = made(tmp_path)
    assert done.code == 0, done.stderr
    records = {Path(record.image).stem: record for record in done.records.values()}
    for name, (_, says) in REFUSED.items():
        assert records[name].status == "quarantined", name
        assert says in records[name].reason, records[name]
    prepared = Prepared(done.paths.prepared("d"))
    for name in TAKEN:
        record = records[name]
        assert record.status == "ok", record
        values = prepared.image(record.id)[...]
        assert np.isfinite(values).all(), name
        assert values.min() < values.max(), name
    assert len(prepared.ids()) == 3 + len(TAKEN)
    tally(
        "an image has odd pixels",
        "NaN, infinity, a single value, 65535 everywhere, one pixel, complex numbers",
        "set aside with a reason; the other images are processed",
        len(REFUSED),
    )
    tally(
        "an image has odd pixels",
        "nearly saturated, one bright pixel, 10^32, contrast of 10^-5, negative, bilevel, one row",
        "prepared; finite values, contrast kept",
        len(TAKEN),
    )


@pytest.mark.faults
def test_odd_sizes_to_the_end(tmp_path: Path, tally: Tally) -> None:
    """The whole workflow on images that are smaller than a patch, a tile or a kernel."""
    from tests.faults.strange import snakemake

    shapes = [(1, 2), (1, 64), (64, 1), (3, 3), (7, 300), (300, 7), (65, 63), (200, 200)]
    dice = np.random.default_rng(0)
    for number, shape in enumerate(shapes * 2):
        marked = np.zeros(shape, np.uint8)
        marked[: shape[0] // 2 + 1, : shape[1] // 2] = 255
        image = (marked * 100.0 + dice.normal(20000, 3000, shape)).astype(np.uint16)
        if number == 15:
            image[marked > 0] = 65535  # saturated
        write(tmp_path / "i" / f"{number:02d}.tif", image)
        write(tmp_path / "l" / f"{number:02d}.tif", marked)
    config = {
        "output": "out", "device": "cpu",
        "datasets": {
            "d": {
                "images": "i", "labels": "l", "classes": {"a": 0, "b": 255},
                "split": {"test": 0.34, "val": 0.34},
            }
        },
        "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 2, "train": {"patch": 64}}},
        "prepare": {"tile": 64}, "predict": {"tile": 64}, "report": {"bootstrap": 100},
        "train": {"batch": 2, "epochs": 1, "steps_per_epoch": 4, "warmup_steps": 1},
    }  # fmt: skip
    done = snakemake(tmp_path, config, "--cores", "2", "--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    paths = Paths(tmp_path / "out")
    with paths.splits("d").open() as handle:
        tested = [row["image"] for row in csv.DictReader(handle) if row["part"] == "test"]
    for name in tested:
        mask = tifffile.imread(paths.masks("d", "m", 0) / f"{name}.tif")
        assert mask.shape == shapes[int(name) % len(shapes)]
    with paths.metrics("d", "m").open() as handle:
        assert {row["image"] for row in csv.DictReader(handle)} >= set(tested)
    tally(
        "an image is tiny",
        "1 x 2 to 7 x 300 pixels, a saturated one among them, through the whole workflow",
        "trained on, predicted, measured and reported like all other images",
        len(shapes) * 2,
    )


# Swapped labels and images.


@pytest.mark.faults
@pytest.mark.parametrize("task", ["semantic", "instances"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_labels_and_images_swapped(tmp_path: Path, tally: Tally, task: str, depth: Any) -> None:
    from unet.data.synthetic import write_dataset

    write_dataset(tmp_path, "nuclei", 3, 3, (160, 160), 0.5)
    (tmp_path / "labels").rename(tmp_path / "i")
    (tmp_path / "images").rename(tmp_path / "l")
    for path in (tmp_path / "l").iterdir():
        image = tifffile.imread(path)
        scaled = image / image.max() * np.iinfo(depth).max
        write(path, scaled.astype(depth))
    done = made(tmp_path, task=task, classes=None if task == "instances" else SETTINGS["classes"])
    assert done.code == 2
    error = done.stderr.splitlines()[-1]
    assert "none of 3 images is usable" in error
    assert error.endswith("are images and labels swapped?"), error
    assert not done.paths.manifest("d").exists()
    tally(
        "labels and images are swapped",
        "`images` names the labels and `labels` the images: both tasks, 8 and 16 bits",
        "one line that asks whether they are swapped; nothing is written",
    )


@pytest.mark.parametrize(("side", "is_one"), [(1, False), (2, True), (3, True), (20, True)])
def test_what_looks_like_an_image(tmp_path: Path, side: int, is_one: bool) -> None:
    """Tiny objects side by side, without background between them, are labels and not an image."""
    ids = np.arange(1, 3601, dtype=np.uint16).reshape(60, 60).repeat(side, 0).repeat(side, 1)
    write(tmp_path / "i.tif", pixels(ids.shape))
    write(tmp_path / "l.tif", ids)
    files = (tmp_path / "i.tif", tmp_path / "l.tif", None)
    if is_one:
        assert inspect(*files, Expected("instances")).objects == 3600
        return
    with pytest.raises(UserError, match=r"3600 values, .* images and labels swapped"):
        inspect(*files, Expected("instances"))
    with pytest.raises(UserError, match=r"belong to no class .* images and labels swapped"):
        inspect(*files, Expected("semantic", frozenset((0, 255))))


# Very many, very large.


def child(name: str, paths: Paths, settings: dict[str, Any], *words: str) -> tuple[int, str, int]:
    """Exit code of a stage, its console output, and its peak memory in bytes."""
    code = (
        "import resource, runpy, sys\n"
        "code = runpy.run_path(sys.argv[1])['main'](sys.argv[2:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts" / f"{name}.py"),
         "--output", str(paths.output), "--dataset", "d", "--settings", canonical(settings),
         "--threads", "2", *words],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stderr, int(done.stdout.split()[-1]) if done.stdout else 0


@pytest.mark.faults
def test_ten_thousand_images(tmp_path: Path, tally: Tally) -> None:
    from PIL import Image

    number = 10_000
    dice = np.random.default_rng(0)
    (tmp_path / "i").mkdir()
    for index in range(number):
        path = tmp_path / "i" / f"{index:05d}.png"
        Image.fromarray(dice.integers(0, 255, (12, 10), np.uint8)).save(path, compress_level=1)
    paths = Paths(tmp_path / "out")
    settings = {**SETTINGS, "labelled": False}
    code, said, memory = child(
        "manifest", paths, settings, "--root", str(tmp_path), "--images", "i"
    )
    assert code == 0, said
    assert memory < 1e9
    assert len(read_manifest(paths.manifest("d"))) == number
    # One message per hundred images, so that the log is readable.
    assert len(said.splitlines()) < 100, said
    code, said, memory = child("prepare", paths, PREPARE, "--memory-gb", "0.5")
    assert code == 0, said
    assert memory < 1e9
    assert len(json.loads(paths.prepared_done("d").read_text())["images"]) == number
    assert len(said.splitlines()) < 200, said
    tally(
        "10,000 tiny images",
        "PNG files of 12 x 10 pixels through the stages manifest and prepare",
        "as usual; less than 1 GB of memory, a short log",
    )


@pytest.mark.faults
def test_one_very_large_image(tmp_path: Path, tally: Tally) -> None:
    side, tile = 20_000, 512
    across = -(-side // tile)
    block = np.add.outer(np.arange(tile), np.arange(tile) // 3).astype(np.uint16)
    marked = (block > 700).astype(np.uint8) * 255
    for folder, what in (("i", block), ("l", marked)):
        (tmp_path / folder).mkdir()
        import imagecodecs

        # Compressed only once, so that the file is written quickly.
        encoded = imagecodecs.zlib_encode(what.tobytes(), level=1)
        tifffile.imwrite(
            tmp_path / folder / "slide.tif", iter([encoded] * across**2), shape=(side, side),
            dtype=what.dtype, tile=(tile, tile), compression="zlib", photometric="minisblack",
        )  # fmt: skip
    raw = side * side * 3
    paths = Paths(tmp_path / "out")
    code, said, memory = child(
        "manifest", paths, SETTINGS, "--root", str(tmp_path), "--images", "i", "--labels", "l"
    )
    assert code == 0, said
    assert memory < 0.5e9 < raw
    prepare = {**PREPARE, "prepare": {**PREPARE["prepare"], "tile": 512, "shard": 4}}
    code, said, memory = child("prepare", paths, prepare, "--memory-gb", "0.4")
    assert code == 0, said
    assert memory < 0.8e9
    prepared = Prepared(paths.prepared("d"))
    assert prepared.image("slide").shape == (1, side, side)
    corner = prepared.classes("slide")
    assert corner is not None
    rows = np.arange(side - 600, side) % tile
    np.testing.assert_array_equal(corner[-600:, -600:], marked[np.ix_(rows, rows)] > 0)
    tally(
        "an image of 20,000 x 20,000",
        "16 bits with its label (1.2 GB decoded) through manifest and prepare, memory_gb: 0.4",
        "prepared to the last pixel with less than 0.8 GB of memory",
    )


# Names, links and permissions: tests/faults/strange.py defines them.


@pytest.mark.faults
def test_odd_names_to_the_end(tally: Tally) -> None:
    run = strange_run()
    assert run.code == 0, run.said
    paths = Paths(run.output)
    records = {Path(record.image).name: record for record in read_manifest(paths.manifest("d"))}
    assert set(records) == {*NAMES.values(), *BAD}
    for name in NAMES.values():
        assert records[name].status == "ok", records[name]
        assert records[name].label, records[name]
    ids = [record.id for record in records.values()]
    assert len(set(ids)) == len(ids)
    for name, says in BAD.items():
        assert records[name].status == "quarantined"
        assert says in records[name].reason
    usable = {records[name].id for name in NAMES.values()}
    with paths.splits("d").open() as handle:
        parts = {row["image"]: row["part"] for row in csv.DictReader(handle)}
    assert set(parts) == usable
    tested = {name for name, part in parts.items() if part == "test"}
    assert {p.stem for p in paths.masks("d", "m", 0).glob("*.tif")} >= tested
    with paths.metrics("d", "m").open() as handle:
        assert {row["image"] for row in csv.DictReader(handle)} >= tested
    tally(
        "an image has an odd name",
        "spaces, unicode, leading dashes, quotes, braces, shell and HTML, 243 letters, through "
        "the whole workflow",
        "each has its own id and appears in the reports",
        len(NAMES) - 1,
    )
    tally(
        "an image is a symbolic link",
        "to a file elsewhere; to nowhere; to itself",
        "the first is read as the file; the others are set aside (no such file)",
        3,
    )


@pytest.mark.faults
def test_inputs_are_only_read(tally: Tally) -> None:
    run = strange_run()
    assert run.code == 0, run.said
    assert stamps(run.raw) == run.before
    tally(
        "the inputs are read-only",
        "folders 0555, files 0444, through the whole workflow",
        "as usual; nothing in them is changed, added or touched",
    )


def test_links_in_circles(tmp_path: Path) -> None:
    """A glob with ** followed each of them 40 times, and two of them through each other."""
    write(tmp_path / "a" / "x.tif", pixels())
    for name in ("first", "second"):
        (tmp_path / "a" / name).symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "x").symlink_to("x")
    found = [str(item.path.relative_to(tmp_path)) for item in find("**/*.tif", tmp_path, "images")]
    assert found == ["a/x.tif", "elsewhere/x.tif"]
    assert stamp(tmp_path / "x") == NO_FILE
    size, _ = stamp(tmp_path)
    links = (tmp_path / "x").lstat().st_size
    assert size == 2 * (tmp_path / "a" / "x.tif").stat().st_size + links


def test_a_glob_of_folders_within_folders(tmp_path: Path) -> None:
    """Like glob itself: hidden files are left out, and ** also matches no folder."""
    from glob import glob as found_by_glob

    for name in ("x.tif", "a/x1.tif", "a/b/x2.tif", "a/b/c/x3.tif", ".hidden/x4.tif", "a/.x5.tif"):
        write(tmp_path / name, pixels((4, 4)))
    for pattern in ("**/*.tif", "a/**/*.tif", "*/**/x?.tif", "**/b/**/*.tif", "a/**"):
        expected = sorted(
            str(tmp_path / name)
            for name in found_by_glob(pattern, root_dir=tmp_path, recursive=True)  # noqa: PTH207
            if name.endswith(".tif")
        )
        assert sorted({str(item.path) for item in find(pattern, tmp_path, "images")}) == expected
    with pytest.raises(UserError, match="matches no image"):
        find("**/*.png", tmp_path, "images")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The workflow reports it in one line, before any job."""
    from unet.config.load import load
    from unet.planning.jobs import Run

    raw = {
        "output": str(tmp_path / "out"), "data_root": str(tmp_path),
        "datasets": {
            "d": {"images": "i", "labels": "l", "classes": {"a": 0, "b": 1}},
        },
        "models": {"m": {"preset": "unet-bn"}},
    }  # fmt: skip
    good(tmp_path)
    Run(load(raw)).sources.check()

    def refuse(self: Path) -> Iterator[Path]:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=f"^config: datasets.d: .*/i: {os.strerror(code)}$"):
        Run(load(raw)).sources.check()
