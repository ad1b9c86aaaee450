"""The workflow's logic that does not need Snakemake."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unet.config.check_settings import CheckSettings
from unet.config.load import load
from unet.errors import UserError
from unet.planning.jobs import Run, offer_interpreter


def test_the_running_interpreter_is_the_first_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    offer_interpreter()
    offer_interpreter()
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]


def config(**dataset: object) -> dict[str, Any]:
    return {
        "data_root": "$UNET_TEST_ROOT",
        "datasets": {"d": {"task": "instances", **dataset}},
        "models": {"m": {"preset": "unet-bn", "width": 2, "depth": 1}},
    }


def test_missing_raw_files_show_before_any_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_TEST_ROOT", str(tmp_path / "missing"))
    run = Run(load(config(images="images", labels="labels")))
    with pytest.raises(UserError, match=r"^config: datasets\.d: images"):
        run.sources.check()


def test_roots_expand_variables_and_generated_images_lie_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_TEST_ROOT", str(tmp_path))
    assert Run(load(config(images="i", labels="l"))).sources.of("d").root == tmp_path
    raw = config(synthetic={"kind": "nuclei", "images": 4, "size": 64})
    run = Run(load({**raw, "output": str(tmp_path / "out")}))
    assert run.sources.of("d").root == tmp_path / "out" / "d" / "raw"
    assert run.sources.fingerprint("d") == ""
    run.sources.check()


def test_the_written_config_loads_to_the_same_run(tmp_path: Path) -> None:
    raw = config(synthetic={"kind": "phase", "images": 4, "size": 64})
    run = Run(load({**raw, "output": str(tmp_path)}))
    run.write_config()
    again = Run(load(yaml.safe_load(run.paths.config.read_text())))
    assert again.config == run.config
    for stage in ("train", "predict", "stitch"):
        assert again.settings(stage, "d", "m") == run.settings(stage, "d", "m")


def test_masks_of_other_tools_are_planned_like_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_TEST_ROOT", str(tmp_path))
    generated = {"kind": "nuclei", "images": 4, "size": 64}
    raw = config(synthetic=generated, compare={"cellpose": "masks", "x": "*.npy"})
    run = Run(load({**raw, "output": str(tmp_path / "out")}))
    with pytest.raises(UserError, match=r"datasets\.d\.compare\.cellpose: .*\n.*compare\.x: "):
        run.sources.check()
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.tif").write_bytes(b"one")
    (tmp_path / "a.npy").write_bytes(b"one")
    run = Run(load({**raw, "output": str(tmp_path / "out")}))
    run.sources.check()
    assert run.sources.compared("d", "cellpose").root == tmp_path
    table = tmp_path / "out" / "d" / "compared" / "cellpose" / "metrics.csv"
    assert table in run.report_inputs("d")
    assert table in run.targets
    assert run.compared_results("d", "cellpose") == [table.parent / "fold-0" / "segmentation.zarr"]
    assert '"fingerprint":"' in run.settings("compare", "d", "cellpose").replace(" ", "")
    assert run.settings("compare", "d", "x") != run.settings("compare", "d", "cellpose")


def test_the_check_looks_at_masks_of_other_tools_by_content(tmp_path: Path) -> None:
    generated = {"kind": "nuclei", "images": 4, "size": 64}

    def settings(**data: Any) -> CheckSettings:
        run = Run(load(config(synthetic=generated, **data)))
        return CheckSettings.from_json(json.loads(run.settings("check", "d")))

    assert "compare" not in settings().config["datasets"]["d"]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.tif").write_bytes(b"one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    one, other = (settings(compare={"x": str(tmp_path / name)}) for name in ("one", "other"))
    assert one == other
    (tmp_path / "other" / "a.tif").write_bytes(b"two!")
    assert settings(compare={"x": str(tmp_path / "other")}) != one
    # The job gets the paths besides.
    at = one.with_masks("d", {"x": "/there"}).config_at("d", "out", "root", "images", None)
    assert at.datasets["d"].compare == {"x": "/there"}
    assert "there" not in json.dumps(one.to_json())


def test_no_other_stage_depends_on_masks_of_other_tools(tmp_path: Path) -> None:
    generated = {"kind": "nuclei", "images": 4, "size": 64}
    plain = Run(load(config(synthetic=generated)))
    more = Run(load(config(synthetic=generated, compare={"x": str(tmp_path)})))
    for stage in ("synthesize", "manifest", "splits", "prepare", "evaluate"):
        assert plain.settings(stage, "d") == more.settings(stage, "d"), stage
    for stage in ("train", "predict", "stitch"):
        assert plain.settings(stage, "d", "m") == more.settings(stage, "d", "m"), stage
    assert "compared" not in plain.settings("report", "d")
    assert '"compared":["x"]' in more.settings("report", "d").replace(" ", "")
    assert "compared" not in plain.settings_all()
