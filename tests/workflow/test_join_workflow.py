"""Two datasets and one that joins them, as a user runs it: one training on both, scores of each,
nothing copied, and what runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.workflow.test_workflow import CONFIG as SMALL
from tests.workflow.test_workflow import Workplace
from unet.cli.run_events import EVENTS
from unet.config.run import merge
from unet.data.records import read_splits
from unet.data.store import Prepared
from unet.data.synthetic import write_dataset
from unet.evaluation.metrics.rows import read_metrics
from unet.files import read_json, remove
from unet.paths import Paths

pytestmark = pytest.mark.workflow


def dataset(name: str, model: str) -> dict[str, Any]:
    return {
        "images": f"{name}/images", "labels": f"{name}/labels", "task": "instances",
        "split": {"test": 0.34, "val": 0.34}, "models": [model],
    }  # fmt: skip


CONFIG: dict[str, Any] = {
    **SMALL,
    "datasets": {
        "dark": dataset("dark", "a"),
        "bright": dataset("bright", "b"),
        "both": {"join": ["dark", "bright"], "models": ["a"]},
    },
}


def raw_images(folder: Path) -> None:
    """The same kind of images twice, the second ones with another size, contrast and offset."""
    write_dataset(folder / "dark", "nuclei", 3, 5, (96, 96), 0.5)
    write_dataset(folder / "bright", "nuclei", 8, 4, (64, 64), 0.5)
    for path in (folder / "bright" / "images").iterdir():
        image = tifffile.imread(path).astype(np.float32)
        scaled = (20_000 + 0.4 * image * 60_000 / image.max()).astype(np.uint16)
        tifffile.imwrite(path, scaled, metadata={"axes": "YX"})


def test_a_join(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    raw_images(tmp_path / "raw")
    page = "out/both/report.html"
    done = place.snakemake("--quiet", "rules", "--cores", "2", page, config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    # What is made of the joined images, and the model on `dark` alone, to compare; no other.
    assert paths.model("both", "a", 0).exists()
    assert paths.metrics("dark", "a").exists()
    assert not paths.model("bright", "b", 0).exists()

    parts = {row.image: row.part for row in read_splits(paths.splits("both"))}
    for name in ("dark", "bright"):
        for row in read_splits(paths.splits(name)):
            assert parts.pop(f"{name}.{row.image}") == row.part
    assert not parts
    tested = {row.image for row in read_metrics(paths.metrics("both", "a"))}
    assert {name.partition(".")[0] for name in tested} == {"dark", "bright"}
    alone = {f"dark.{row.image}" for row in read_metrics(paths.metrics("dark", "a"))}
    assert alone == {name for name in tested if name.startswith("dark.")}

    # Nothing is copied, and each image has the normalisation of its own dataset.
    files = [path for path in paths.prepared("both").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["zarr.json"]
    store = Prepared(paths.prepared("both"))
    for name in store.ids():
        member, _, own = name.partition(".")
        there = Prepared(paths.prepared(member))
        assert store.attrs(name)["key"] == there.attrs(own)["key"]
        np.testing.assert_array_equal(store.image(name)[...], there.image(own)[...])
        low, high = np.percentile(store.image(name)[...], [1, 99.8])
        assert (low, high) == pytest.approx((0, 1), abs=0.05)
    entries = read_json(paths.prepared_done("both"))["images"]
    assert {entry["dataset"] for entry in entries.values()} == {"dark", "bright"}
    assert "validation score by dataset: dark" in log_of(paths)

    text = paths.dataset_report_html("both").read_text()
    assert '<section id="members">' in text
    assert "a on dark:" in text
    assert "trained on dark alone" in text
    assert "a on bright:" in text
    assert "trained on bright alone" not in text
    # The pixel size of `bright` is not in its files.
    assert "the pixel sizes differ (dark 0.5 x 0.5 um, bright unknown)" in text

    assert wanted(place, CONFIG, page) == set()
    # The images of `bright` are made again if they are needed and gone.
    remove(paths.prepared("bright"))
    weighted = merge(CONFIG, {"datasets": {"both": {"join": {"dark": 3, "bright": 1}}}})
    stages = {"train both a 0", "predict both a 0", "stitch both a 0", "evaluate both a"}
    stages |= {"details both a", "audit both a", "report_dataset both"}
    assert wanted(place, weighted, page) == stages | {"prepare bright", "join both"}


def test_what_is_checked_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``unet run`` shows the checks of the datasets with files; a joined one has none."""
    raw_images(tmp_path / "raw")
    events = tmp_path / "events"
    monkeypatch.setenv(EVENTS, str(events))
    done = Workplace(tmp_path).snakemake("--dry-run", "check", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = (
        event for line in events.read_text().splitlines()
        if (event := json.loads(line))["kind"] == "run"
    )  # fmt: skip
    assert told["checked"] == ["bright", "dark"]
    assert set(told["tasks"]) == {"bright", "dark", "both"}


def log_of(paths: Paths) -> str:
    return paths.log("train", "both", "a", "0").read_text()


def wanted(place: Workplace, config: dict[str, Any], target: str) -> set[str]:
    from tests.planner import jobs_in

    done = place.snakemake("--dry-run", target, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(jobs_in(done.stdout + done.stderr))
