"""A sweep as a user runs it: the trainings, the choice, the report, and what runs again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.test_workflow import CONFIG as SMALL
from tests.workflow.test_workflow import Workplace
from unet.config.run import merge
from unet.files import file_sha256
from unet.paths import Paths
from unet.training.choice import best_score

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    **SMALL,
    # Folds that test their own images: each chooses alone.
    "datasets": {"sem": {**SMALL["datasets"]["sem"], "evaluate": {"metrics": ["pixel"]}}},
    "models": {"a": {**SMALL["models"]["a"], "sweep": {"train.lr": [0.000001, 0.02]}}},
}
MEMBERS = ["a-lr0_000001", "a-lr0_02"]
FOLDS = (0, 1)
CHOICES = {"choose sem a 0", "choose sem a 1"}


def test_a_sweep(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    wanted = place.wanted(CONFIG)
    trained = {f"train sem {model} {fold}" for model in MEMBERS for fold in FOLDS}
    assert {job for job in wanted if job.startswith("train")} == trained
    assert wanted >= CHOICES
    later = [job for job in wanted - trained if "-lr" in job]
    assert not later
    done = place.snakemake("--cores", "2", "--quiet", "rules", config=CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr

    for fold in FOLDS:
        scores = {model: best_score(paths.history("sem", model, fold)) for model in MEMBERS}
        best = max(MEMBERS, key=lambda model: scores[model])
        choice = json.loads(paths.choice("sem", "a", fold).read_text())
        assert choice["chosen"] == best
        assert {e["model"]: e["validation_score"] for e in choice["members"]} == scores
        assert {key for e in choice["members"] for key in e["folds"]} == {str(fold)}
        # Nothing of the other fold played a part.
        assert all(f"/fold-{fold}/" in name for name in choice["made_by"]["inputs"])
        for path in (paths.model, paths.history, paths.curves):
            assert file_sha256(path("sem", "a", fold)) == file_sha256(path("sem", best, fold))
    for model in MEMBERS:
        assert not paths.metrics("sem", model).exists()
        assert not paths.tiles_done("sem", model, 0).exists()

    page = paths.dataset_report_html("sem").read_text()
    assert '<section id="sweep">' in page
    assert "each by its own validation images" in page or "Each fold chose" in page
    assert "-lr0" not in paths.dataset_report_csv("sem").read_text()
    assert "-lr0" not in paths.report_html.read_text()

    # The run's own config is the same run, also without Snakemake's records.
    assert place.wanted(CONFIG) == set()
    written = yaml.safe_load(paths.config.read_text())
    assert list(written["models"]) == ["a"]
    assert place.wanted(written) == set()
    (tmp_path / ".snakemake").rename(tmp_path / "records")
    assert place.wanted(CONFIG) == set()
    shutil.rmtree(tmp_path / ".snakemake")
    (tmp_path / "records").rename(tmp_path / ".snakemake")

    # Folds that test the same images choose together, so another split chooses again.
    fixed = merge(CONFIG, {"datasets": {"sem": {"split": {"test": 0.25, "val": None}}}})
    assert place.wanted(fixed) >= CHOICES | trained

    # A value more trains only that, and predicts nothing again if the choice is the same.
    more = merge(CONFIG, {"models": {"a": {"sweep": {"train.lr": [0.000001, 0.02, 0.0000001]}}}})
    new = {f"train sem a-lr0_0000001 {fold}" for fold in FOLDS}
    assert {job for job in place.wanted(more) if job.startswith("train")} == new
    before = [json.loads(paths.choice("sem", "a", fold).read_text())["chosen"] for fold in FOLDS]
    done = place.snakemake("--cores", "2", "--quiet", "rules", "--until", "choose", config=more)
    assert done.returncode == 0, done.stdout + done.stderr
    after = [json.loads(paths.choice("sem", "a", fold).read_text())["chosen"] for fold in FOLDS]
    assert after == before
    assert place.wanted(more) == {"report_dataset sem", "report"}


def test_folds_with_the_same_test_images_choose_together(tmp_path: Path) -> None:
    place, paths = Workplace(tmp_path), Paths(tmp_path / "out")
    config = merge(CONFIG, {"datasets": {"sem": {"split": {"test": 0.25, "val": None}}}})
    done = place.snakemake("--cores", "2", "--quiet", "rules", "--until", "choose", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    means = {
        model: sum(best_score(paths.history("sem", model, fold)) for fold in FOLDS) / 2
        for model in MEMBERS
    }
    best = max(MEMBERS, key=lambda model: means[model])
    for fold in FOLDS:
        choice = json.loads(paths.choice("sem", "a", fold).read_text())
        assert choice["chosen"] == best
        scores = {each["model"]: each["validation_score"] for each in choice["members"]}
        assert scores == pytest.approx(means)
