"""`unet info` on models of a finished run, on a copied model.pt, and on what is no model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.models.test_zoo_reading import by_hand
from unet.cli import main
from unet.cli.info_command import _normalization, lines_of
from unet.config.geometry import footprint
from unet.config.presets import PRESETS, Architecture, architecture_of
from unet.data.records import SplitRecord, write_splits
from unet.models.build import build
from unet.models.model_file import ModelFile, save_model
from unet.models.network import parameter_counts
from unet.paths import Paths
from unet.report.model_facts import nearest_preset, rule_in_words
from unet.report.score_tables import ReportRow, write_report
from unet.versions import library_versions

ARCH = architecture_of("unet-bn", width=4, depth=2)
CONFIG: dict[str, Any] = {
    "datasets": {"cells": {"images": "i", "labels": "l", "task": "instances"}},
    "models": {"small": {"preset": "unet-bn", "width": 4, "depth": 2, "head": "border"}},
}
SCORE = {"class_": "instances", "metric": "ap_0.50"}


def model_of(step: int = 30) -> ModelFile:
    head = ("background", "inside", "border")
    return ModelFile(
        architecture=ARCH, in_channels=2, head=head, class_names=("background", "foreground"),
        class_values=None, task="instances", normalize={"method": "percentile", "low": 1.0},
        pixel_size_um=(0.5, 0.5), settings={}, versions=library_versions(), score=0.75, step=step,
        weights=build(2, len(head), ARCH).state_dict(),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Paths:
    """Two folds of a model, with everything that a run writes around them."""
    paths = Paths(tmp_path / "results")
    for fold in (0, 1):
        file = paths.model("cells", "small", fold)
        file.parent.mkdir(parents=True)
        save_model(file, model_of(step=30 + fold))
        os.utime(file, (1_700_000_000 + fold, 1_700_000_000 + fold))
        done = paths.segmentation_done("cells", "small", fold)
        done.write_text(json.dumps({"threshold": 0.4 + fold / 10}))
    paths.config.write_text(yaml.safe_dump(CONFIG))
    parts = ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    rows = [SplitRecord(f"i{n}", k, part) for k in (0, 1) for n, part in enumerate(parts)]  # type: ignore[arg-type]
    write_splits(paths.splits("cells"), rows)
    other = ReportRow("cells", "other", **SCORE, mean=0.1, low=0.0, high=0.2, n=6)
    ours = ReportRow("cells", "small", **SCORE, mean=0.8123, low=0.71, high=0.9, n=6)
    write_report(paths.dataset_report_csv("cells"), [other, ours])
    return paths


def facts_of(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main.main(["info", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_model_of_a_run(run: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run.fold("cells", "small", 0).parent
    facts = facts_of(folder, capsys)
    assert len(facts["files"]) == 2
    network = facts["network"]
    assert (network["preset"], network["width"], network["depth"]) == ("unet-bn", 4, 2)
    counts = parameter_counts(build(2, 3, ARCH))
    assert (network["parameters"], network["trainable"]) == counts
    fp = footprint(ARCH)[0]
    assert network["receptive_field"] == [fp.receptive_field] * 2
    assert network["halo"] == [fp.halo] * 2
    training = facts["training"]
    assert (training["dataset"], training["folds"], training["steps"]) == (
        "cells", ["0", "1"], [30, 31],
    )  # fmt: skip
    assert training["images"] == {k: {"train": 5, "val": 2, "test": 3} for k in "01"}
    assert facts["takes"]["channels"] == 2
    assert facts["results"]["threshold"] == [0.4, 0.5]
    assert facts["results"]["scores"] == [
        {"label": "AP@0.5", "metric": "ap_0.50", "class": "instances", "mean": 0.8123,
         "low": 0.71, "high": 0.9, "images": 6}
    ]  # fmt: skip
    assert facts["terms"] == {}
    assert main.main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    for words in (
        "AP@0.5           0.812 [0.710, 0.900] (6 images)", "5 train, 2 val, 3 test", "0.5 µm",
        "folds 0, 1", "any size", "percentile (low 1)", "0.4, 0.5", "background, inside, border",
        "and those of 1 more fold", "2023-11-14",
    ):  # fmt: skip
        assert words in text
    assert "modulo" not in text
    assert "terms" not in text


def test_scores_before_there_is_a_report(run: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    run.dataset_report_csv("cells").unlink()
    folder = run.fold("cells", "small", 0)
    facts = facts_of(folder, capsys)
    assert (facts["results"]["scores"], facts["results"]["scores_from"]) == ([], "")
    assert "no report.csv or metrics.csv" in "\n".join(lines_of(facts))
    table = "dataset,model,fold,image,group,class,metric,value,weight\n"
    for n, value in enumerate((0.5, 0.6, 0.7, 0.8)):
        table += f"cells,small,0,i{n},,instances,ap_0.50,{value},1\n"
    run.metrics("cells", "small").write_text(table)
    (score,) = facts_of(folder, capsys)["results"]["scores"]
    assert score["mean"] == pytest.approx(0.65)
    assert score["low"] < 0.65 < score["high"]
    assert score["images"] == 4


def test_a_copied_model_says_what_it_lacks(
    run: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "elsewhere" / "a" / "b" / "model.pt"
    copy.parent.mkdir(parents=True)
    shutil.copy(run.model("cells", "small", 1), copy)
    facts = facts_of(copy, capsys)
    assert facts["training"]["dataset"] is None
    assert facts["network"]["preset"] == "unet-bn"
    assert facts["results"]["scores"] == []
    assert facts["notes"] == ["the model is not in the results of a run"]


def test_whose_scores_they_are(run: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """The scores beside one fold are those of all folds."""
    folds = yaml.safe_load(yaml.safe_dump(CONFIG))
    folds["datasets"]["cells"]["split"] = {"folds": 2}
    run.config.write_text(yaml.safe_dump(folds))
    line = "all 2 folds of the model together, not of the given one alone"
    for path, said in ((run.model("cells", "small", 1), True),
                       (run.fold("cells", "small", 0).parent, False)):  # fmt: skip
        assert main.main(["info", str(path)]) == 0
        assert (line in capsys.readouterr().out) == said


def test_a_package_speaks_for_itself(run: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if it lies in the results of a run, which may be another one than its own."""
    told = {"name": "Nuclei", "license": "MIT", "authors": [{"name": "A"}, {"name": "B"}, 3]}
    path = by_hand(run.fold("cells", "small", 0) / "p.zip", model_of(), told)
    facts = facts_of(path, capsys)
    assert facts["title"] == "Nuclei"
    assert facts["terms"] == {"licence": "MIT", "authors": "A; B"}
    assert (facts["training"]["dataset"], facts["results"]["scores"]) == (None, [])
    assert "the package holds no scores" in "\n".join(lines_of(facts))
    score = {"label": "PQ", "metric": "pq", "class": "", "mean": 0.5, "low": None, "high": None,
             "images": 3}  # fmt: skip
    trained = {"dataset": "other", "model": "m", "fold": 2, "scores": [score]}
    facts = facts_of(by_hand(path, model_of(), trained=json.dumps(trained)), capsys)
    assert (facts["training"]["dataset"], facts["training"]["folds"]) == ("other", ["2"])
    assert facts["results"]["scores"] == [score]


@pytest.mark.parametrize("text", ["{", "[]", '{"scores": [3]}', 7,
                                  '{"dataset":"d","model":"m","fold":0,"scores":[{"label":"a",'
                                  '"metric":"a","class":"","mean":NaN,"low":1,"high":1,"images":1}'
                                  ']}'])  # fmt: skip
def test_damaged_facts_of_a_package(
    text: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = by_hand(tmp_path / "p.zip", model_of(), trained=text)
    assert main.main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "unet_pipeline.trained" in err
    assert "get the package again" in err


def test_terms_of_use_and_a_config_of_a_newer_version(
    run: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = yaml.safe_load(yaml.safe_dump(CONFIG))
    newer["datasets"]["cells"]["licence"] = "CC-BY-4.0"
    newer["models"]["small"]["citation"] = "Doe 2020"
    run.config.write_text(yaml.safe_dump(newer))
    facts = facts_of(run.fold("cells", "small", 0), capsys)
    assert facts["terms"] == {"licence": "CC-BY-4.0", "citation": "Doe 2020"}
    assert lines_of(facts).count("terms") == 1
    run.config.write_text("datasets: [broken")
    assert "cannot be read" in facts_of(run.fold("cells", "small", 0), capsys)["notes"][0]


def test_only_the_keys_of_the_normalisation_are_shown() -> None:
    section = {"low": 1.0, "high": 99.8, "scope": "dataset", "statistics": {"shift": [0]}}
    found = [_normalization({"method": name, **section})
             for name in ("percentile", "zscore", "minmax", "none")]  # fmt: skip
    assert found == ["percentile (low 1, high 99.8, scope dataset)", "zscore (scope dataset)",
                     "minmax (scope dataset)", "none"]  # fmt: skip


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["info", str(tmp_path)]) == 2
    assert "no model here; give a model.pt" in capsys.readouterr().err
    (tmp_path / "model.pt").write_text("no model")
    assert main.main(["info", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "not a readable model file" in err
    (tmp_path / "n.onnx").write_bytes(b"\x08\x0a")
    assert main.main(["info", str(tmp_path / "n.onnx")]) == 2
    assert "n.onnx: an .onnx file is for other programs; give" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_preset_of_an_architecture_and_its_sizes(name: str) -> None:
    arch = PRESETS[name]
    assert nearest_preset(arch) == name
    if isinstance(arch, Architecture):
        assert nearest_preset(architecture_of(name, width=8, depth=2, dims=3)) == name
    fp = footprint(arch)[0]
    words = rule_in_words(fp)
    assert words.startswith(f"{fp.smallest} or more")
    assert (f"in steps of {fp.grid}" in words) == (fp.grid > 1)
