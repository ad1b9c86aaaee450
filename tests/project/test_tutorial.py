"""docs/tutorial.md, command by command. Only the training is made shorter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
import yaml

from tests.project.test_docs_commands import blocks, commands_in
from unet.config.load import load_file

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
COMMANDS = [
    words for language, text in blocks(PAGE) if language == "" for words in commands_in(text)
]
# What makes the training short enough for a test.
SHORT = {"epochs": 2, "steps_per_epoch": 4, "warmup_steps": 1, "patch": 64, "batch": 2}


def test_the_search_finds_all_commands() -> None:
    assert [words[:2] for words in COMMANDS] == [
        ("python", "-c"), ("python", "-c"), ("unet", "init"), ("unet", "check"), ("unet", "run"),
        ("unet", "run"), ("unet", "predict"), ("unet", "evaluate"),
    ]  # fmt: skip


@pytest.mark.workflow
def test_the_tutorial(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def call(words: tuple[str, ...]) -> str:
        program = [sys.executable, *(["-m", "unet"] if words[0] == "unet" else [])]
        done = subprocess.run(
            [*program, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    make, make_new, init, check, run, plan, predict, evaluate = COMMANDS
    call(make)
    call(make_new)
    assert len(list((tmp_path / "my-nuclei" / "labels").iterdir())) == 16

    said = call(init)
    (shown,) = [text for language, text in blocks(PAGE) if "16 pairs by name" in text]
    assert [line for line in shown.splitlines() if line not in said] == []
    path = tmp_path / "my.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    (written,) = [yaml.safe_load(text) for _, text in blocks(PAGE) if "data_root" in text]
    assert written.pop("data_root") == Path(config["data_root"]).name
    # On a slow machine the network is narrower.
    assert written["models"]["unet"].pop("width") >= config["models"]["unet"].pop("width")
    assert {key: config[key] for key in written} == written

    config["train"] |= SHORT
    config["models"]["unet"]["width"] = 4
    path.write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    assert "Touching another one" in call(check)
    results = tmp_path / config["output"]
    assert (results / "my-nuclei" / "check.html").is_file()

    assert str(config["output"]) in call(run)
    assert (results / "report.html").is_file()

    # Step 6: the section that the page shows takes the place of the one in the file.
    (edit,) = [yaml.safe_load(text) for _, text in blocks(PAGE) if text.startswith("stitch:")]
    path.write_text(yaml.safe_dump({**config, **edit}, sort_keys=False), "utf-8")
    assert load_file(path).stitch.threshold == edit["stitch"]["threshold"]
    planned = call(plan)
    assert "stitch" in planned
    assert "train " not in planned

    call(predict)
    masks = sorted((tmp_path / "segmented" / "masks").glob("*.tif"))
    assert [tifffile.imread(mask).shape for mask in masks] == [(192, 192)] * 4
    assert (tmp_path / "segmented" / "index.html").is_file()
    assert "AP" in call(evaluate)
    assert (tmp_path / "scores" / "index.html").is_file()
