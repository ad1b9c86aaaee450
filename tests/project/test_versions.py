"""Reminds developers who edit the code of a stage to decide whether its results change."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.stage_hashes import ROOT, STORED, current, imports_of, plain, reachable, stage_hash
from unet.config.stage_settings import SETTINGS
from unet.planning.resources import NEEDS
from unet.versions import STAGES


def test_every_stage_has_a_script_and_a_version() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert set(STAGES) <= scripts
    assert all(isinstance(version, int) and version >= 1 for version in STAGES.values())


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_parts(stage: str) -> None:
    """Settings, needs, a rule, a row in the docs; and an output that tells which stage made it."""
    assert stage in SETTINGS, f"unet/config/stage_settings.py: SETTINGS lacks {stage}"
    assert stage in NEEDS, f"unet/planning/resources.py: NEEDS lacks {stage}"
    rules = [path.read_text(encoding="utf-8") for path in (ROOT / "workflow").rglob("*.smk")]
    (rule, *_) = [text for text in rules if f'PATHS.log("{stage}"' in text] or [""]
    assert rule, f"workflow/rules: no rule of {stage}"
    assert f'common_options("{stage}")' in rule
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| `.*?\| ([^|]*) \|", page, re.MULTILINE)
    assert any(stage in cell.split(", ") for cell in written), (
        f"docs/pipeline.md: no file is written by {stage}"
    )


def test_the_stored_hashes_are_those_of_the_code() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    now = current()
    stale = sorted(stage for stage in {*stored, *now} if stored.get(stage) != now.get(stage))
    assert not stale, (
        f"the code behind {', '.join(stale)} has changed. If results change, raise STAGES[stage] "
        "in unet/versions.py, so that the stage and the following ones run again; then, in either "
        "case, run `make stage-hashes` and commit tests/stage_hashes.json"
    )


@pytest.mark.parametrize(
    ("stage", "there", "absent"),
    [
        ("train", {"unet.training.trainer", "unet.models.unet", "unet.data.store"},
         {"unet.prediction.stitch.stitch", "unet.config.run", "unet.config.stage_settings"}),
        ("predict", {"unet.prediction.tiles.predict", "unet.data.tiling"},
         {"unet.training.trainer"}),
        ("stitch", {"unet.prediction.stitch.stitch", "unet.export.ome_zarr_writer"},
         {"unet.models.unet"}),
        ("splits", {"unet.data.splits"}, {"unet.io.tiff_reader", "unet.data.prepare"}),
    ],
)  # fmt: skip
def test_what_is_behind_a_stage(stage: str, there: set[str], absent: set[str]) -> None:
    found = set(reachable(ROOT / "scripts" / f"{stage}.py"))
    assert there <= found
    assert not absent & found


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("unet.config.sections", set()),
        ("unet.config.choices", set()),
        ("unet.config.engine_table", {"export", "check", "train", "predict"}),
        ("unet.config.recipes", set()),
        # A new family of metrics: its own file, its entry here, its options in the sections.
        ("unet.evaluation.families", {"evaluate", "compare"}),
        ("unet.report.score_tables", {"export", "check", "evaluate", "report"}),
        ("unet.report.figures", {"check", "report"}),
        # The check measures how fast this machine trains.
        ("unet.training.losses.overlap", {"check", "train"}),
        ("unet.models.unet", {"export", "check", "prepare_applied", "train", "predict", "quality"}),
        ("unet.prediction.objects.watershed", {"stitch", "evaluate", "compare", "export"}),
    ],
)
def test_an_edit_affects_the_stages_that_use_the_module(module: str, stages: set[str]) -> None:
    scripts = {stage: ROOT / "scripts" / f"{stage}.py" for stage in STAGES}
    assert {stage for stage, script in scripts.items() if module in reachable(script)} == stages


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_only_code_counts(tmp_path: Path) -> None:
    script = write(tmp_path, "s.py", "def f():\n    from unet.a import g\n    return g(1)\n")
    module = write(
        tmp_path, "unet/a.py", '"""Doc."""\n\ndef g(x):\n    """Doc."""\n    return x + 1\n'
    )
    write(tmp_path, "unet/b.py", "VALUE = 1\n")
    before = stage_hash(script, tmp_path)
    assert set(reachable(script, tmp_path)) == {"unet.a"}
    module.write_text(
        '"""Other."""\n# comment\n\ndef g(x):\n    """Else."""\n    return (x\n  + 1)\n'
    )
    assert stage_hash(script, tmp_path) == before
    write(tmp_path, "unet/b.py", "VALUE = 2\n")  # not imported
    assert stage_hash(script, tmp_path) == before
    module.write_text("def g(x):\n    return x + 2\n")
    assert stage_hash(script, tmp_path) != before
    module.write_text("from unet import b\n\ndef g(x):\n    return x + 1\n")
    with_b = stage_hash(script, tmp_path)
    write(tmp_path, "unet/b.py", "VALUE = 3\n")
    assert stage_hash(script, tmp_path) != with_b


def test_texts_that_are_not_docstrings_count() -> None:
    trees = [plain(ast.parse(f"x = {text!r}")) for text in ("a", "b")]
    assert trees[0] != trees[1]
    assert plain(ast.parse("def f():\n    'doc'")) == plain(ast.parse("def f():\n    'cod'"))


def test_all_ways_to_import() -> None:
    code = (
        "import unet.files\nfrom unet import errors as e\nfrom unet.data import store, nothing\n"
        "def f():\n    from unet.models.unet import UNet\nimport numpy\nfrom os import path\n"
    )
    assert imports_of(ast.parse(code)) == {
        "unet", "unet.files", "unet.errors", "unet.data", "unet.data.store", "unet.models.unet",
    }  # fmt: skip
