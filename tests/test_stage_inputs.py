"""By hand as in the workflow: no stage takes inputs that were made from other files or for another
config than it is asked for."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from unet import inputs, provenance, slices
from unet.config import load_file
from unet.errors import UserError
from unet.files import write_sentinel
from unet.paths import Paths

CONFIG: dict[str, Any] = {
    "datasets": {
        "d": {"synthetic": {"kind": "nuclei", "images": 4, "size": 64}, "task": "instances"},
    },
    "models": {"m": {"preset": "unet-bn", "width": 4, "depth": 1}},
}
FOLD = {"fold": 0}


class Run:
    """A run's files as each stage leaves them, by one config, as small as can be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "results")
        self.config = self.written(CONFIG)
        config = load_file(self.config)
        for stage in ("splits", "prepare", "train", "predict", "stitch", "evaluate"):
            make: Any = getattr(slices, stage)
            per_model = stage in ("train", "predict", "stitch")
            settings = make(config, "d", "m") if per_model else make(config, "d")
            self.make(stage, settings)

    def written(self, config: dict[str, Any], name: str = "config.yaml") -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    def make(self, stage: str, settings: dict[str, Any], content: str = "") -> None:
        p, where = self.paths, ("d", "m", 0)
        sources = {
            "splits": [], "prepare": [],
            "train": [p.prepared_done("d"), p.splits("d")],
            "predict": [p.prepared_done("d"), p.splits("d"), p.model(*where)],
            "stitch": [p.tiles_done(*where), p.prepared_done("d")],
            "evaluate": [p.segmentation_done(*where), p.prepared_done("d")],
        }[stage]  # fmt: skip
        made = provenance.made_by(stage, settings, provenance.inputs_of(p.output, sources))
        target = {
            "splits": p.splits("d"), "prepare": p.prepared_done("d"),
            "train": p.history(*where), "predict": p.tiles_done(*where),
            "stitch": p.segmentation_done(*where), "evaluate": p.metrics("d", "m"),
        }[stage]  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".json":
            write_sentinel(target, 1, {"a": {"key": content}}, made)
            return
        target.write_text(f"table {stage} {content}\n")
        provenance.write_sidecar(target, made)
        if stage == "train":
            p.model(*where).write_text(f"weights {content}")

    def check(self, stage: str, config: Path | None = None, **more: Any) -> None:
        args = Namespace(
            stage=stage, dataset="d", model="m", output=self.paths.output, config=config, **more
        )
        given = None if config is None else load_file(config)
        inputs.check(args, {"models": ["m"]}, given)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


STAGES = [
    ("train", FOLD), ("predict", FOLD), ("stitch", FOLD), ("evaluate", {"folds": [0]}),
    ("report", {}),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "more"), STAGES)
def test_what_fits_is_taken(run: Run, stage: str, more: Any) -> None:
    run.check(stage, **more)
    run.check(stage, run.config, **more)


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
    # The first stage that must notice what is other in the config, and what it says.
    ("train", {"prepare__tile": 128}, "prepared.json: made with .*prepare.tile: 512, now 128"),
    ("train", {"seed": 5}, "splits.csv: made with .*seed: 0, now 5"),
    ("stitch", {"predict__tile": 64}, "tiles.json: made with .*predict.tile: auto, now 64"),
    ("stitch", {"predict__tta": True}, "tiles.json: made with .*predict.tta: False, now True"),
    ("evaluate", {"stitch__min_size": 3}, "segmentation.json: .*stitch.min_size: 16, now 3"),
    ("report", {"evaluate__metrics": ["pixel"]}, "metrics.csv: made with .*evaluate.metrics"),
]


@pytest.mark.parametrize(("first", "keys", "words"), OTHERS)
def test_other_settings_by_hand(run: Run, first: str, keys: dict[str, Any], words: str) -> None:
    other = run.written(changed(**keys), "other.yaml")
    noticed = False
    for stage, more in STAGES:
        # The workflow knows what its files were made with.
        run.check(stage, **more)
        noticed |= stage == first
        if not noticed:
            run.check(stage, other, **more)
            continue
        with pytest.raises(UserError, match=words if stage == first else "made with") as caught:
            run.check(stage, other, **more)
        assert "other.yaml" in str(caught.value)
        assert "\n" not in str(caught.value)


CHANGES: list[tuple[str, str, Any]] = [
    ("prepare", "predict", FOLD), ("prepare", "stitch", FOLD), ("prepare", "evaluate", None),
    ("splits", "predict", FOLD), ("train", "stitch", FOLD), ("predict", "evaluate", None),
    ("stitch", "report", {}),
]  # fmt: skip


@pytest.mark.parametrize("workflow", [True, False])
@pytest.mark.parametrize(("redone", "stage", "more"), CHANGES)
def test_inputs_that_were_made_again(
    run: Run, redone: str, stage: str, more: Any, workflow: bool
) -> None:
    """And what was made of them was not."""
    more = {"folds": [0]} if more is None else more
    run.make(redone, {"version": 1}, "other content")
    config = None if workflow else run.config
    with pytest.raises(UserError, match=r"made (from another|with other settings)") as caught:
        run.check(stage, config, **more)
    assert "\n" not in str(caught.value)


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
    for stage, more in STAGES:
        run.check(stage, other, **more)


def test_a_config_that_knows_it_no_more(run: Run) -> None:
    value = changed()
    value["models"] = {"n": value["models"]["m"]}
    with pytest.raises(UserError, match=r"tiles.json: .*other.yaml has no 'm'"):
        run.check("stitch", run.written(value, "other.yaml"), **FOLD)


def test_stitch_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line: one line, and nothing is written."""
    from scripts import stitch

    run = Run(tmp_path)
    other = run.written(changed(predict__tile=64), "other.yaml")
    before = sorted(run.paths.output.rglob("*"))
    words = ["--output", str(run.paths.output), "--dataset", "d", "--model", "m", "--fold", "0"]
    assert stitch.main([*words, "--config", str(other)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "tiles.json: made with other settings than" in said[0]
    assert "predict.tile: auto, now 64" in said[0]
    assert "run scripts/predict.py with this config, or give the one that made it" in said[0]
    assert sorted(run.paths.output.rglob("*")) == before
