"""By hand and in the workflow: stages notice inputs that were made from different files or with a
different config."""

from __future__ import annotations

import importlib
import io
import json
import re
from argparse import Namespace
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import yaml

from unet import provenance
from unet.cli import stage_inputs
from unet.config.load import load_file
from unet.config.stage_settings import SETTINGS, PredictSettings, ReportAllSettings
from unet.errors import UserError
from unet.files import write_sentinel
from unet.paths import ENSEMBLE, Paths

CONFIG: dict[str, Any] = {
    "datasets": {
        "d": {"synthetic": {"kind": "nuclei", "images": 4, "size": 64}, "task": "instances"},
    },
    "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 1}},
}
STAGES_MADE = (
    *("synthesize", "manifest", "splits", "prepare", "train", "predict", "stitch", "evaluate"),
    "details",
    "report",
)
STAGES = [*STAGES_MADE[1:], "all"]


class Run:
    """The files of a run after each stage, for one config, as small as possible."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "results")
        self.config = self.written(CONFIG)
        config = load_file(self.config)
        self.settings: dict[str, dict[str, Any]] = {}
        for stage in STAGES_MADE:
            settings = SETTINGS[stage].of(config, "d", "m").to_json()
            if stage == "manifest":
                settings["fingerprint"] = "by hand this stands for the files"
            self.settings[stage] = settings
            self.make(stage, settings)

    def written(self, config: dict[str, Any], name: str = "config.yaml") -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    def make(self, stage: str, settings: dict[str, Any], content: str = "") -> None:
        p, where = self.paths, ("d", "m", 0)
        sources = provenance.inputs_of(p.output, self.sources(stage))
        made = provenance.made_by(stage, settings, sources)
        target = {
            "synthesize": p.raw_done("d"), "manifest": p.manifest("d"),
            "splits": p.splits("d"), "prepare": p.prepared_done("d"),
            "train": p.history(*where), "predict": p.tiles_done(*where),
            "stitch": p.segmentation_done(*where), "evaluate": p.metrics("d", "m"),
            "details": p.matches("d", "m"),
            "report": p.dataset_report_csv("d"),
        }[stage]  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".json":
            write_sentinel(target, 1, {"a": {"key": content}}, made)
            return
        # A stage's first table, and any others.
        for table in p.details("d", "m") if stage == "details" else [target]:
            table.write_text(f"table {stage} {content}\n")
            provenance.write_sidecar(table, made)
        if stage == "train":
            p.model(*where).write_text(f"weights {content}")

    def sources(self, stage: str) -> list[Path]:
        p, where = self.paths, ("d", "m", 0)
        return {
            "synthesize": [], "manifest": [p.raw_done("d")],
            "splits": [p.manifest("d")], "prepare": [p.manifest("d")],
            "train": [p.prepared_done("d"), p.splits("d")],
            "predict": [p.prepared_done("d"), p.splits("d"), p.model(*where)],
            "stitch": [p.tiles_done(*where), p.prepared_done("d")],
            "evaluate": [p.segmentation_done(*where), p.prepared_done("d")],
            "details": [p.segmentation_done(*where), p.prepared_done("d")],
            "report": [
                p.metrics("d", "m"), *p.details("d", "m"), p.history(*where), p.manifest("d"),
                p.splits("d")
            ],
            "all": [p.dataset_report_csv("d")],
        }[stage]  # fmt: skip

    def check(self, stage: str, config: Path | None = None) -> None:
        args = Namespace(stage=stage, output=self.paths.output, config=config)
        settings = ReportAllSettings.made(datasets={})
        made = stage_inputs.check_inputs(args, settings, self.sources(stage))
        assert made["inputs"] == provenance.inputs_of(self.paths.output, self.sources(stage))

    def run(self, stage: str, config: Path) -> int:
        """The command line."""
        script = importlib.import_module(f"scripts.{'report' if stage == 'all' else stage}")
        words = ["--output", str(self.paths.output), "--config", str(config)]
        words += ["--all"] if stage == "all" else ["--dataset", "d"]
        if stage in ("train", "predict", "stitch", "evaluate", "details"):
            words += ["--model", "m"]
            words += ["--folds", "0"] if stage in ("evaluate", "details") else ["--fold", "0"]
        if stage == "manifest":
            words += ["--root", str(self.paths.raw("d")), "--images", "images"]
        return int(script.main(words))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_what_fits_is_taken(run: Run, stage: str, caplog: pytest.LogCaptureFixture) -> None:
    run.check(stage)
    run.check(stage, run.config)
    assert not caplog.records


def changed(**keys: Any) -> dict[str, Any]:
    value = json.loads(json.dumps(CONFIG))
    for path, new in keys.items():
        *parts, last = path.split("__")
        at = value
        for part in parts:
            at = at.setdefault(part, {})
        at[last] = new
    return value


OTHERS: list[tuple[str, dict[str, Any], str]] = [
    # The first stage that must notice the change in the config, the change, the message.
    ("manifest", {"datasets__d__synthetic__images": 5}, "raw.json: .*images: 4, now 5"),
    ("splits", {"datasets__d__axes": "YX"}, "manifest.csv: made with .*axes: None, now YX"),
    ("splits", {"strict": True}, "manifest.csv: made with .*strict: False, now True"),
    ("train", {"prepare__tile": 128}, "prepared.json: made with .*prepare.tile: 512, now 128"),
    ("train", {"datasets__d__split": {"test": 0.5}}, "splits.csv: made with .*test: .*, now 0.5"),
    ("manifest", {"seed": 5}, "raw.json: made with .*seed: 0, now 5"),
    ("stitch", {"predict__tile": 64}, "tiles.json: made with .*predict.tile: auto, now 64"),
    ("stitch", {"predict__tta": True}, "tiles.json: made with .*predict.tta: False, now True"),
    ("evaluate", {"stitch__min_size": 3}, "segmentation.json: .*stitch.min_size: 16, now 3"),
    ("report", {"evaluate__metrics": ["pixel"]}, "metrics.csv: made with .*evaluate.metrics"),
    ("all", {"report__bootstrap": 123}, "report.csv: made with .*report.bootstrap: .*, now 123"),
]


@pytest.mark.parametrize(("first", "keys", "words"), OTHERS)
def test_other_settings_by_hand(
    run: Run, first: str, keys: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run.written(changed(**keys), "other.yaml")
    # The stages that do not read what this made.
    before = STAGES[: STAGES.index(first)]
    spared = {"splits", "prepare"} if first == "train" else set()
    for stage in STAGES:
        # The workflow knows what its files were made with.
        run.check(stage)
        if stage in before or stage in spared:
            run.check(stage, other)
            continue
        capsys.readouterr()
        assert run.run(stage, other) == 2
        said = capsys.readouterr().err.strip()
        assert re.search(words if stage == first else "made with", said), said
        assert "other.yaml" in said
        assert "\n" not in said


CHANGES = [
    # The stage that was rerun, a later stage, its outdated input, what that was made from.
    ("synthesize", "prepare", "manifest.csv", "raw.json"),
    ("manifest", "train", "prepared.json", "manifest.csv"),
    ("prepare", "predict", "model.pt", "prepared.json"),
    ("prepare", "stitch", "tiles.json", "prepared.json"),
    ("prepare", "evaluate", "segmentation.json", "prepared.json"),
    ("splits", "predict", "model.pt", "splits.csv"),
    ("splits", "report", "history.csv", "splits.csv"),
    ("train", "stitch", "tiles.json", "model.pt"),
    ("predict", "evaluate", "segmentation.json", "tiles.json"),
    ("stitch", "report", "metrics.csv", "segmentation.json"),
    ("evaluate", "all", "report.csv", "metrics.csv"),
    ("details", "all", "report.csv", "confusion.csv"),
]


@pytest.mark.parametrize(("redone", "stage", "path", "source"), CHANGES)
def test_inputs_that_were_made_again(
    run: Run, redone: str, stage: str, path: str, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that were made from them were not made again: an error by hand, but only a warning in
    the workflow, whose planning accepted it (for example after ``snakemake --touch``)."""
    run.make(redone, run.settings[redone], "other content")
    with pytest.raises(UserError, match=f"made from a different .*{source} than") as caught:
        run.check(stage, run.config)
    assert "\n" not in str(caught.value)
    assert not caplog.records
    run.check(stage)
    (said,) = (record.getMessage() for record in caplog.records)
    assert re.search(f"{path}: made from a different .*{source} than .*delete it to", said)
    assert "\n" not in said


def test_of_processes_that_train_together_one_warns(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.make("manifest", run.settings["manifest"], "other content")
    monkeypatch.setenv("RANK", "1")
    run.check("train")
    assert not caplog.records
    monkeypatch.setenv("RANK", "0")
    run.check("train")
    (record,) = caplog.records
    assert "(and 1 more)" in record.getMessage()


def test_a_shard_of_other_networks_is_not_gathered(run: Run) -> None:
    from scripts import predict

    p = run.paths
    sources = provenance.inputs_of(p.output, run.sources("predict"))
    settings = {**run.settings["predict"], "version": 1}
    for shard in range(2):
        made = provenance.made_by("predict", settings, sources)
        write_sentinel(p.shard_done("d", "m", 0, shard), 1, {}, made)
    words = ["--output", str(p.output), "--dataset", "d", "--model", "m", "--fold", "0"]
    words += ["--gather", "--shards", "2", "--config", str(run.config)]
    said = io.StringIO()
    with redirect_stderr(said):
        assert predict.main(words) == 2
    assert "tiles.shard-0.json: made with different settings than" in said.getvalue()


def test_thresholds_of_the_dataset_that_a_model_comes_from(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts import evaluate, stitch

    value = changed(predict__tile=64)
    value["datasets"]["e"] = {"images": "e/*.tif", "predict_with": ["d/m"]}
    value["stitch"] = {"threshold": "auto"}
    value["evaluate"] = {"metrics": ["topology"]}
    other, p = run.written(value, "other.yaml"), run.paths
    for path in (p.prepared_done("e", "m@d"), p.tiles_done("e", "m@d", ENSEMBLE),
                 p.segmentation_done("e", "m@d", ENSEMBLE)):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sentinel(path, 1, {})
    words = ["--output", str(p.output), "--dataset", "e", "--model", "m@d", "--config", str(other)]
    for script, more, path in (
        (stitch, ["--fold", "ensemble"], "segmentation.json"),
        (evaluate, ["--folds", "ensemble"], "metrics.csv"),
    ):
        capsys.readouterr()
        assert script.main([*words, *more]) == 2
        said = capsys.readouterr().err
        assert re.search(f"/d/m/.*{path}: made with different settings than", said), said


def test_files_of_earlier_versions_are_taken(run: Run) -> None:
    other = run.written(changed(predict__tile=64), "other.yaml")
    for path in run.paths.output.rglob("*.json"):
        value = json.loads(path.read_text())
        value.pop("made_by", None)
        path.write_text(json.dumps(value))
    run.make("prepare", {}, "other content")
    done = run.paths.prepared_done("d")
    value = json.loads(done.read_text())
    del value["made_by"]
    done.write_text(json.dumps(value))
    for stage in STAGES:
        run.check(stage, other)


def test_a_config_without_the_dataset_or_model(run: Run) -> None:
    value = changed()
    value["models"] = {"n": value["models"]["m"]}
    with pytest.raises(UserError, match=r"tiles.json: .*other.yaml has no model 'm'"):
        run.check("stitch", run.written(value, "other.yaml"))
    value = changed()
    value["datasets"] = {"e": value["datasets"]["d"]}
    with pytest.raises(UserError, match=r"prepared.json: .*other.yaml has no dataset 'd'"):
        run.check("train", run.written(value, "other.yaml"))


def test_an_internal_error_is_not_reported_as_a_mistake_in_the_config(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> dict[str, Any]:
        return {}["typo"]  # type: ignore[no-any-return]

    monkeypatch.setattr(PredictSettings, "of", broken)
    with pytest.raises(KeyError, match="typo"):
        run.check("stitch", run.config)


def test_stitch_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line prints one line and writes nothing."""
    from scripts import stitch

    run = Run(tmp_path)
    other = run.written(changed(predict__tile=64), "other.yaml")
    before = sorted(run.paths.output.rglob("*"))
    words = ["--output", str(run.paths.output), "--dataset", "d", "--model", "m", "--fold", "0"]
    assert stitch.main([*words, "--config", str(other)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "tiles.json: made with different settings than" in said[0]
    assert "predict.tile: auto, now 64" in said[0]
    assert "run scripts/predict.py with this config, or give the config that made it" in said[0]
    assert sorted(run.paths.output.rglob("*")) == before
