"""Bad files in the stages' command lines: left out with a reason, or one line and exit code 2, but
never a stack trace or a half-written output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unet.data.records import ImageRecord, read_manifest, read_splits
from unet.data.store import Prepared
from unet.files import canonical
from unet.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {
    "version": 1, "layout": "folders", "task": "semantic",
    "classes": {"background": 0, "cell": 255}, "ignore": None, "axes": None,
    "pixel_size_um": None, "channels": None, "group": None, "column": None, "strict": False,
    "labelled": True, "fingerprint": "f",
}  # fmt: skip


def pixels(shape: tuple[int, ...] = (40, 50), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint8)


def label(shape: tuple[int, int] = (40, 50), value: int = 255) -> np.ndarray:
    marked = np.zeros(shape, dtype=np.uint8)
    marked[5:15, 8:20] = value
    return marked


def write(path: Path, data: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})


def good(root: Path, count: int = 3) -> None:
    for number in range(count):
        write(root / "i" / f"good{number}.tif", pixels(seed=number))
        write(root / "l" / f"good{number}.tif", label())


@dataclass
class Outcome:
    code: int
    stderr: str
    paths: Paths

    @property
    def records(self) -> dict[str, ImageRecord]:
        return {r.id: r for r in read_manifest(self.paths.manifest("d"))}


def stage(name: str, paths: Paths, settings: dict[str, Any], *words: str) -> Outcome:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--output", str(paths.output),
         "--dataset", "d", "--settings", canonical(settings), "--threads", "2", *words],
        capture_output=True, text=True, check=False, cwd=paths.output.parent,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
    # Whatever happened, nothing half-written is left.
    assert not list(paths.output.rglob("*.tmp")), list(paths.output.rglob("*.tmp"))
    return Outcome(done.returncode, done.stderr, paths)


def manifest(root: Path, **settings: Any) -> Outcome:
    return stage(
        "manifest", Paths(root / "out"), {**SETTINGS, **settings},
        "--root", str(root), "--images", "i", "--labels", "l",
    )  # fmt: skip


def truncated(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels())
    data = (root / "i" / "bad.tif").read_bytes()
    (root / "i" / "bad.tif").write_bytes(data[: len(data) // 2])


def empty(root: Path) -> None:
    (root / "i" / "bad.tif").write_bytes(b"")


def no_image(root: Path) -> None:
    (root / "i" / "bad.tif").write_text("these are words")


def truncated_label(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels())
    data = (root / "l" / "bad.tif").read_bytes()
    (root / "l" / "bad.tif").write_bytes(data[: len(data) // 2])


def other_shape(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels((41, 50)))


def missing_label(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels())
    (root / "l" / "bad.tif").unlink()


def not_a_number(root: Path) -> None:
    data = pixels().astype(np.float32)
    data[3, 4] = np.nan
    write(root / "i" / "bad.tif", data)


def one_value(root: Path) -> None:
    write(root / "i" / "bad.tif", np.full((40, 50), 7, np.uint8))


def more_channels(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels((40, 50, 3)), photometric="rgb")


def ambiguous(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels((4, 40, 50)), metadata={"axes": "QYX"})


def undeclared(root: Path) -> None:
    write(root / "i" / "bad.tif", pixels())
    write(root / "l" / "bad.tif", label(value=7))


BAD: list[tuple[Callable[[Path], None], list[str]]] = [
    (truncated, []),
    (empty, ["empty"]),
    (no_image, []),
    (truncated_label, ["label"]),
    (other_shape, ["41 x 50", "40 x 50"]),
    (missing_label, ["no label"]),
    (not_a_number, ["NaN"]),
    (one_value, ["all pixels have the value 7"]),
    (more_channels, ["3 channels", "mixed channels", "key channels"]),
    (ambiguous, ["axes"]),
    (undeclared, ["7", "classes have 0, 255"]),
]


def spoilt(root: Path) -> None:
    """A dataset with three good images and one of each kind of bad image."""
    good(root)
    for spoil, _ in BAD:
        write(root / "l" / "bad.tif", label())
        spoil(root)
        for path in (root / "i" / "bad.tif", root / "l" / "bad.tif"):
            if path.exists():
                path.rename(path.with_stem(spoil.__name__))


def test_bad_images_are_left_out_and_the_others_used(tmp_path: Path) -> None:
    spoilt(tmp_path)
    done = manifest(tmp_path)
    assert done.code == 0, done.stderr
    usable = {r.id for r in done.records.values() if r.status == "ok"}
    assert usable == {"good0", "good1", "good2"}
    for spoil, says in BAD:
        name = f"i/{spoil.__name__}.tif"
        bad = [r for r in done.records.values() if r.image == name]
        assert bad, name
        for record in bad:
            assert record.status == "quarantined"
            assert record.reason
            assert "\n" not in record.reason
            for text in says:
                assert text in record.reason, record
    # The console says how many, and why.
    assert "3 images" in done.stderr
    assert done.stderr.count("left out") > 5

    # The next stage uses only the usable ones.
    normalize = {"method": "percentile", "low": 1.0, "high": 99.8, "scope": "image"}
    settings = {
        "version": 1, "prepare": {"normalize": normalize, "tile": 32, "shard": 4},
        "task": "semantic", "ignore": None, "axes": None, "channels": None,
        "classes": [["background", 0], ["cell", 255]],
    }  # fmt: skip
    made = stage("prepare", done.paths, settings)
    assert made.code == 0, made.stderr
    assert set(Prepared(done.paths.prepared("d")).ids()) == usable
    # A raw file that is damaged after the manifest: one line, and no sentinel.
    done.paths.prepared_done("d").unlink()
    (tmp_path / "i" / "good1.tif").write_bytes(b"")
    broken = stage(
        "prepare",
        done.paths,
        {**settings, "prepare": {"normalize": normalize, "tile": 64, "shard": 4}},
    )
    assert broken.code == 2
    assert "good1.tif" in broken.stderr
    assert not done.paths.prepared_done("d").exists()


def test_two_files_of_one_name(tmp_path: Path) -> None:
    """Both would have the same id, and which label belongs to which cannot be known."""
    good(tmp_path)
    write(tmp_path / "i" / "good0.tiff", pixels(seed=9))
    done = manifest(tmp_path)
    assert done.code == 2
    assert "good0.tif" in done.stderr
    assert "good0.tiff have the same name" in done.stderr
    assert not done.paths.manifest("d").exists()


@pytest.mark.parametrize("spoil", [truncated, missing_label, undeclared])
def test_strict_stops_at_the_first(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    good(tmp_path)
    write(tmp_path / "l" / "bad.tif", label())
    spoil(tmp_path)
    done = manifest(tmp_path, strict=True)
    assert done.code == 2
    assert "error: i/bad.tif: " in done.stderr
    assert not done.paths.manifest("d").exists()


def test_nothing_usable(tmp_path: Path) -> None:
    write(tmp_path / "i" / "bad.tif", pixels())
    write(tmp_path / "l" / "bad.tif", label(value=7))
    done = manifest(tmp_path)
    assert done.code == 2
    assert "its only image is not usable: i/bad.tif: " in done.stderr
    assert not done.paths.manifest("d").exists()


def test_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = manifest(tmp_path)
    assert done.code == 2
    assert str(tmp_path / "i") in done.stderr
    good(tmp_path)
    for path in (tmp_path / "i").iterdir():
        path.unlink()
    assert manifest(tmp_path).code == 2


def test_a_copy_in_another_part_is_an_error(tmp_path: Path) -> None:
    """The same content in training and test would make the scores too good."""
    good(tmp_path, 6)
    (tmp_path / "i" / "good1.tif").write_bytes((tmp_path / "i" / "good0.tif").read_bytes())
    done = manifest(tmp_path)
    assert done.code == 0
    assert "same content as good0" in done.records["good1"].reason
    # With as many folds as images each is tested alone, so the two are in different parts.
    split = {"folds": 6, "test": None, "column": None, "group": None, "val": 0.2}
    made = stage("splits", done.paths, {"version": 1, "seed": 0, "split": split})
    assert made.code == 2
    assert "i/good0.tif and i/good1.tif are the same file" in made.stderr
    assert not done.paths.splits("d").exists()
    (tmp_path / "i" / "good1.tif").unlink()
    done = manifest(tmp_path)
    split["folds"] = 5
    made = stage("splits", done.paths, {"version": 1, "seed": 0, "split": split})
    assert made.code == 0, made.stderr
    rows = read_splits(done.paths.splits("d"))
    assert {r.image for r in rows if r.part == "test"} == {
        name for name, record in done.records.items() if record.status == "ok"
    }


@pytest.mark.parametrize(
    "name", ["splits", "prepare", "train", "predict", "stitch", "evaluate", "details", "audit"]
)
def test_a_stage_whose_inputs_are_missing(tmp_path: Path, name: str) -> None:
    where = {
        "train": ["--model", "m", "--fold", "0"],
        "predict": ["--model", "m", "--fold", "0"],
        "stitch": ["--model", "m", "--fold", "0"],
        "evaluate": ["--model", "m", "--folds", "0"],
        "details": ["--model", "m", "--folds", "0"],
        "audit": ["--model", "m", "--folds", "0"],
    }
    config = tmp_path / "c.yaml"
    config.write_text(
        json.dumps(
            {
                "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
                "models": {"m": {"preset": "unet-bn"}},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--output", str(tmp_path / "out"),
         "--config", str(config), "--dataset", "d", *where.get(name, [])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert str(tmp_path / "out") in lines[0]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
