"""Results that were moved, renamed, copied or cloned: what differs is recomputed, the rest is kept,
whatever the times of the files."""

from __future__ import annotations

import inspect
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.made import check_made_by
from tests.once import once
from tests.planner import Plan, Request, plans
from tests.planning.test_reruns import OWN, B, copied, edited, image
from tests.rerun_rows import follows
from tests.workflow.test_workflow import CONFIG, Workplace
from unet import provenance
from unet.config.run import merge
from unet.paths import Paths, store_of
from unet.planning import stale
from unet.planning.untracked import Untracked

pytestmark = pytest.mark.workflow

MOVED = {**CONFIG, "output": "moved"}
BOTH = (("sem", "own"), ("a", "b"))
TILED = merge(MOVED, {"prepare": {"tile": 32}})


def renamed(folder: Path) -> None:
    """``mv out moved``."""
    (folder / "out").rename(folder / "moved")


def shuffled(folder: Path) -> None:
    """Like ``git clone``, which writes files in any order, without ``.snakemake``."""
    shutil.rmtree(folder / ".snakemake")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(0).shuffle(paths)
    now = time.time()
    for number, path in enumerate(paths):
        os.utime(path, (now + number, now + number))


def without_times(folder: Path) -> None:
    """Like ``cp -r``: Snakemake's records exist, but the files have new times, the models the
    latest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    now = time.time()
    for number, path in enumerate(sorted(paths, key=lambda path: path.name == "model.pt")):
        os.utime(path, (now + number, now + number))


def of_before(folder: Path) -> None:
    """Like results of an early version: only the models have records."""
    renamed(folder)
    for path in (folder / "moved").rglob("*.csv-metadata.json"):
        path.unlink()
    for path in (folder / "moved").rglob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.pop(provenance.KEY, None):
            path.write_text(json.dumps(value), encoding="utf-8")


def of_another_release(folder: Path) -> None:
    """Like results of an earlier release with the same stage versions."""
    renamed(folder)
    for path in (folder / "moved").rglob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and provenance.KEY in value:
            value[provenance.KEY]["version"] = "0.0.1"
            path.write_text(json.dumps(value), encoding="utf-8")


def then_prepared(folder: Path) -> None:
    """Results of an early version, in which this version has rerun one stage."""
    of_before(folder)
    words = ("--cores", "2", "--forcerun", "prepare", "--until", "prepare")
    done = Workplace(folder).snakemake(*words, config=TILED)
    assert done.returncode == 0, done.stdout + done.stderr


def then_trained(folder: Path) -> None:
    """Results of an early version, in which this version has retrained a model."""
    of_before(folder)
    paths = Paths(folder / "moved")
    for path in (model := paths.model("own", "b", 0), paths.history("own", "b", 0)):
        os.utime(path)
    inputs = [paths.prepared_done("own"), paths.splits("own")]
    made = provenance.read_made_by(model)
    assert made is not None
    made = provenance.made_by_job(paths.output, "train", made["settings"], inputs)
    provenance.write_sidecar(paths.history("own", "b", 0), made)


def replaced(folder: Path) -> None:
    """Snakemake's records are for other results than the existing ones."""
    touched = merge(CONFIG, {"train": {"epochs": 3}})
    shutil.copytree(folder / "out", folder / "kept")
    (plan,) = plans([Request(folder, touched, ("--touch", "--cores", "1"))])
    assert plan.code == 0, plan.text
    shutil.rmtree(folder / "out")
    (folder / "kept").rename(folder / "out")


def and_then(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def mixed_up(dataset: str) -> Callable[[Path], None]:
    """Replaces a model by that of another fold of ``sem``, with the same file time."""

    def change(folder: Path) -> None:
        paths = Paths(folder / "moved")
        model, other = paths.model(dataset, "a", 0), paths.model("sem", "a", 1)
        before = model.stat()
        shutil.copy(other, model)
        os.utime(model, (before.st_atime, before.st_mtime))

    return change


EDITS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "epochs": ({"train": {"epochs": 3}}, follows("train", *BOTH)),
    "threshold": ({"stitch": {"threshold": 0.3}}, follows("stitch", *BOTH)),
    "width of one model": (
        {"models": {"b": {"width": 3}}},
        follows("train", ("own",), ("b",)) | {"report"},
    ),
    "tile": ({"prepare": {"tile": 32}}, follows("prepare", *BOTH)),
    "a model less": (
        {"datasets": {"own": {"models": ["a"]}}}, {"report_dataset own", "report"},
    ),
}  # fmt: skip
PLACES: dict[str, tuple[Callable[[Path], None], Mapping[str, Any]]] = {
    "moved": (renamed, MOVED),
    "cloned": (shuffled, CONFIG),
    "copied": (without_times, CONFIG),
}
# place, edit -> the jobs that must run.
CASES: dict[str, tuple[Callable[[Path], None], Mapping[str, Any], set[str]]] = {
    f"{place}: {edit}": (change, merge(config, over), jobs)
    for place, (change, config) in PLACES.items()
    for edit, (over, jobs) in EDITS.items()
} | {
    "moved: an image edited": (and_then(renamed, edited(image)), MOVED, OWN),
    "moved: other weights of the same settings": (
        and_then(renamed, mixed_up("sem")), MOVED,
        {"predict sem a 0", "stitch sem a 0", "evaluate sem a", "details sem a", "audit sem a",
         "report_dataset sem", "report"},
    ),
    "moved: a model of other settings": (
        and_then(renamed, mixed_up("own")), MOVED, follows("train", ("own",), ("a",)),
    ),
    "of another release: nothing": (of_another_release, MOVED, set()),
    "of an earlier version: nothing": (of_before, MOVED, set()),
    "of an earlier version: threshold": (
        of_before, merge(MOVED, {"stitch": {"threshold": 0.3}}), set(),
    ),
    "of an earlier version: epochs": (
        of_before, merge(MOVED, {"train": {"epochs": 3}}), follows("train", *BOTH),
    ),
    "of an earlier version: an input made again": (
        then_prepared, TILED, follows("train", *BOTH),
    ),
    "of an earlier version: a model made again": (
        then_trained, MOVED, B - {"train own b 0"},
    ),
    "another one's record: nothing": (replaced, CONFIG, set()),
    "another one's record: epochs": (
        replaced, merge(CONFIG, {"train": {"epochs": 3}}), follows("train", *BOTH),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def found(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    scratch = tmp_path_factory.mktemp("moved")
    return once(tmp_path_factory, "moved", lambda: planned(finished_run, scratch))


def planned(finished_run: Path, scratch: Path) -> dict[str, Plan]:
    requests, places = [], {}
    for number, (change, config, _) in enumerate(CASES.values()):
        if change not in places:
            places[change] = copied(finished_run, scratch / str(number))
            change(places[change])
        # The models of this run are small; Snakemake does not look into those of others.
        words = ("--dry-run", "--max-checksum-file-size", "1000")
        requests.append(Request(places[change], config, words))
    return dict(zip(CASES, plans(requests), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_what_runs_again(found: dict[str, Plan], case: str) -> None:
    plan = found[case]
    assert plan.code == 0, plan.text
    assert set(plan.jobs) == CASES[case][-1]
    assert plan.jobs or "Nothing to be done" in plan.text
    before = case.startswith("of an earlier version")
    assert plan.text.count("cannot tell with which settings") == before


def test_the_reason_is_shown(found: dict[str, Plan]) -> None:
    for place in PLACES:
        plan = found[f"{place}: epochs"]
        assert {job.split()[0]: why for job, why in plan.first.items()} == {"train": "settings"}
    weights = found["moved: other weights of the same settings"]
    assert weights.first == {"predict sem a 0": "inputs"}


def test_every_output_says_what_made_it(finished_run: Path) -> None:
    assert len(check_made_by(finished_run)) == 12


def test_no_lock_file_stays(finished_run: Path) -> None:
    left = [path for path in (finished_run / "out").rglob("*") if path.name.endswith("lock")]
    assert left == []


def test_results_are_really_made_again(finished_run: Path, tmp_path: Path) -> None:
    """A user deletes a folder of a moved run to have it made again."""
    place = Workplace(copied(finished_run, tmp_path / "run"))
    renamed(place.folder)
    paths = Paths(place.folder / "moved")
    shutil.rmtree(paths.masks("own", "b", 0))
    shutil.rmtree(paths.tiles("own", "b", 0))
    before = paths.model("own", "b", 0).stat().st_mtime_ns
    done = place.snakemake("--quiet", "rules", "--cores", "2", config=MOVED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(paths.masks("own", "b", 0).glob("*.tif"))
    assert paths.model("own", "b", 0).stat().st_mtime_ns == before
    assert place.wanted(MOVED) == set()


# Units.


def test_stores_of_sentinels() -> None:
    known = {
        "prepared.json": "prepared.zarr", "tiles.json": "tiles.zarr", "raw.json": "raw",
        "segmentation.json": "segmentation.zarr", "tiles.shard-12.json": "tiles.zarr",
    }  # fmt: skip
    for name, store in known.items():
        assert store_of(Path("d") / name) == Path("d") / store
    for name in ("inputs.json", "tiles.csv", "tiles.shard-1.csv", "prepared.x.json", "model.pt"):
        assert store_of(Path(name)) is None


def test_what_has_changed(tmp_path: Path) -> None:
    table, other = tmp_path / "o" / "d" / "a.csv", tmp_path / "o" / "b.csv"
    for path in (table, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x", encoding="utf-8")
    settings = {"version": 1, "a": [1.5, None]}
    made = provenance.made_by_job(tmp_path / "o", "stitch", settings, [table, other])
    text = '{"a":[1.5,null],"version":1}'
    assert stale.change(made, text, [str(table), str(other)]) == stale.Change()
    assert stale.change(made, "{}", [str(other), str(table)]).settings == text
    assert stale.change(made, text, [str(table)]).inputs
    assert stale.change(made, text, [str(table), str(table)]).inputs
    stale._content_id.cache_clear()
    other.write_text("y", encoding="utf-8")
    assert stale.change(made, text, [str(table), str(other)]).updated == (str(other),)
    other.unlink()
    assert stale.change(made, text, [str(table), str(other)]) == stale.Change()
    assert stale.change({"settings": settings}, text, []) == stale.Change()


def test_jobs_of_others_are_left_alone() -> None:
    text = '{"version":1}'

    def job(**params: object) -> SimpleNamespace:
        return SimpleNamespace(output=["a"], params=SimpleNamespace(**params))

    assert stale._settings(job(settings=text, common=Untracked("train.py"))) == text
    for params in ({}, {"common": "train.py"}, {"common": None}):
        assert stale._settings(job(settings=text, **params)) is None
    assert stale._settings(job(common=Untracked("train.py"))) is None


def test_another_snakemake_plans_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from snakemake import persistence
    from snakemake.jobs import Job

    monkeypatch.delattr(Job, "missing_output")
    monkeypatch.delattr(Job, "plans_by_what_made_outputs", raising=False)
    before = inspect.getattr_static(Job, "output_mintime")
    assert not stale.compare_what_made_outputs()
    assert inspect.getattr_static(Job, "output_mintime") is before
    monkeypatch.undo()
    monkeypatch.delattr(persistence, "ParamsChange")
    assert not stale.compare_what_made_outputs()
